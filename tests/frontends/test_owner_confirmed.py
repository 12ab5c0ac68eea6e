"""OWNER tells the latest state or nothing: it answers once the log has confirmed that nobody else has written."""

from __future__ import annotations

import asyncio

import pytest

from tests.client.inprocess import until
from tests.frontends.cluster import Talk, place
from truba.errors import Deposed
from truba.log.memory import MemoryLog
from truba.ports.log import Done

TOKEN = b"0123456789abcdef"


class DoubtfulLog(MemoryLog):
    """Confirms when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Done] = []

    def confirm(self, done: Done) -> None:
        self.asked.append(done)


async def test_the_list_is_that_of_after_the_confirmation_and_requests_behind_it_wait() -> None:
    log = DoubtfulLog()
    async with place() as here:
        node = await here.lead(log)
        async with Talk(here.address) as before, Talk(here.address) as client:
            before.send(b"OWNER", TOKEN, b"GRACE", b"60")
            await until(lambda: len(log.asked) == 1)
            log.asked.pop()(None)
            assert await before.answer() == []
            assert await before.ask(b"NEW", b"7", b"TAG", b"5") == b"1-2"

            client.send(b"PING")
            client.send(b"OWNER", TOKEN, b"GRACE", b"60")
            client.send(b"NEW", b"7", b"TAG", b"6")
            client.send(b"PING", b"behind")
            assert await client.answer() == b"PONG"
            await until(lambda: len(log.asked) == 1)
            client.send(b"PING", b"later")
            assert await before.ask(b"APPEND", b"1-2", b"r") == b"OK"  # asked, and not moved yet
            assert node.machine.seq == 3
            log.asked.pop()(None)
            assert await client.answer() == [[b"1-2", 7, 5, 1]]
            assert await client.answer() == b"1-4"
            assert [await client.answer(), await client.answer()] == [b"behind", b"later"]
            assert (await before.ask(b"APPEND", b"1-2", b"s")).startswith("FENCED")


async def test_what_cannot_be_confirmed_ends_the_connection_without_an_answer() -> None:
    log = DoubtfulLog()
    async with place() as here:
        node = await here.lead(log)
        async with Talk(here.address) as client:
            client.send(b"OWNER", TOKEN)
            client.send(b"NEW", b"7")
            await until(lambda: len(log.asked) == 1)
            log.asked.pop()(Deposed("another node leads"))
            assert await client.ended()
        assert node.machine.seq == 1


class PoisonedLog(MemoryLog):
    """Says at once that nothing can be confirmed."""

    def confirm(self, done: Done) -> None:
        done(Deposed("another node leads"))


async def test_the_same_when_the_log_says_so_at_once() -> None:
    async with place() as here:
        node = await here.lead(PoisonedLog())
        async with Talk(here.address) as client:
            client.send(b"OWNER", TOKEN)
            client.send(b"NEW", b"7")
            assert await client.ended()
        assert node.machine.seq == 1


@pytest.mark.parametrize("gone", ["closing", "lost"])
async def test_nothing_is_taken_over_for_a_connection_that_is_gone(gone: str) -> None:
    log = DoubtfulLog()
    async with place() as here:
        node = await here.lead(log)
        async with Talk(here.address) as before:
            before.send(b"OWNER", TOKEN, b"GRACE", b"60")
            await until(lambda: len(log.asked) == 1)
            log.asked.pop()(None)
            await before.answer()
            assert await before.ask(b"NEW", b"7") == b"1-2"
            async with Talk(here.address) as client:
                client.send(b"OWNER", TOKEN)
                await until(lambda: len(log.asked) == 1)
                (connection,) = [one for one in here.resp.connections if not one.holds]
                if gone == "closing":
                    connection.close()
                else:
                    assert connection.transport is not None
                    connection.transport.abort()
                assert await client.ended()
            await until(lambda: len(here.resp.connections) == 1)
            log.asked.pop()(None)
            await asyncio.sleep(0)
            assert await before.ask(b"APPEND", b"1-2", b"still mine") == b"OK"
            assert len(node.machine.owned) == 1


async def test_a_refusal_after_the_confirmation_is_told() -> None:
    log = DoubtfulLog()
    async with place() as here:
        await here.lead(log)
        async with Talk(here.address) as client:
            client.send(b"OWNER", TOKEN, b"GRACE", b"1000")
            await until(lambda: len(log.asked) == 1)
            log.asked.pop()(None)
            assert "GRACE is at most" in await client.answer()
            assert await client.ask(b"PING") == b"PONG"


async def test_who_has_said_all_waits_for_the_answer_too() -> None:
    log = DoubtfulLog()
    async with place() as here:
        await here.lead(log)
        async with Talk(here.address) as client:
            client.send(b"OWNER", TOKEN)
            client.writer.write_eof()
            await until(lambda: len(log.asked) == 1)
            log.asked.pop()(None)
            assert await client.answer() == []
            assert await client.ended()
