"""No answer before the disk, none when the disk fails, and none is forgotten at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.client.inprocess import until
from tests.frontends.cluster import Place, Talk, place
from truba.log.memory import MemoryLog


@asynccontextmanager
async def on(log: MemoryLog) -> AsyncIterator[Place]:
    """A node on this log, which is let go in the end, however the test ends: else nothing could stop."""
    async with place() as here:
        await here.lead(log)
        try:
            yield here
        finally:
            log.held = False
            log.release()


async def test_nothing_is_answered_before_it_is_durable() -> None:
    log = MemoryLog()
    async with on(log) as here:
        node = here.node
        assert node is not None
        async with Talk(here.address) as client:
            assert await client.ask(b"PING") == b"PONG"
            log.held = True
            client.send(b"NEW", b"7", b"a")
            client.send(b"PING", b"behind")
            await until(lambda: node.machine.seq >= 2)
            assert not await client.said_something()
            log.held = False
            log.release()
            assert [await client.answer(), await client.answer()] == [b"1-2", b"behind"]


async def test_when_the_log_fails_no_answer_is_the_true_answer() -> None:
    log = MemoryLog()
    async with on(log) as here:
        node = here.node
        assert node is not None
        async with Talk(here.address) as client, Talk(here.address) as idle:
            assert await client.ask(b"NEW", b"7", b"a") == b"1-2"
            assert await idle.ask(b"PING") == b"PONG"
            log.held = True
            client.send(b"APPEND", b"1-2", b"b")
            await until(lambda: node.machine.seq >= 3)
            log.fail(OSError(5, "Input/output error"))
            assert await client.ended()
            idle.send(b"PING")
            assert await idle.ended()


async def test_who_leaves_still_hears_what_was_done() -> None:
    """QUIT behind a write that is on its way to the disk."""
    log = MemoryLog()
    async with on(log) as here:
        node = here.node
        assert node is not None
        async with Talk(here.address) as client:
            assert await client.ask(b"PING") == b"PONG"
            log.held = True
            client.send(b"NEW", b"7", b"a")
            client.send(b"QUIT")
            await until(lambda: node.machine.seq >= 2)
            log.held = False
            log.release()
            assert [await client.answer(), await client.answer()] == [b"1-2", b"OK"]
            assert await client.ended()


async def test_a_frontend_that_stops_still_gives_the_answers() -> None:
    log = MemoryLog()
    async with on(log) as here:
        node = here.node
        assert node is not None
        async with Talk(here.address) as client:
            assert await client.ask(b"PING") == b"PONG"
            log.held = True
            client.send(b"NEW", b"7", b"a")
            await until(lambda: node.machine.seq >= 2)
            for connection in here.resp.connections:
                connection.close()
            log.held = False
            log.release()
            assert await client.answer() == b"1-2"
            assert await client.ended()
