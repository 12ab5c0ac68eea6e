"""Handlers in the pipe's own process: whatever they do, the session ends as it should."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import truba
from tests.client.inprocess import until
from truba.node import presence
from truba.transports import tasks
from truba.types import Phase


@asynccontextmanager
async def handled(
    path: Path, handler: truba.Handler, **policy: Any
) -> AsyncIterator[tuple[truba.EmbeddedPipe, Callable[[], list[str]]]]:
    """A pipe with this handler, and what the loop was told went wrong."""
    told: list[str] = []

    def all_told() -> list[str]:
        gc.collect()  # a task whose error nobody has looked at tells of it when it goes
        return told

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(str(context.get("exception") or context["message"])))
    kind = truba.Kind(7, "transfer", handler, recovery_delay_s=0, jitter_s=0, backoff=truba.Backoff(0, 1, 0), **policy)
    try:
        async with truba.open(path, kinds=[kind]) as pipe:
            yield pipe, all_told
    finally:
        loop.set_exception_handler(None)


async def test_who_stores_it_again_and_returns_has_stored_it(tmp_path: Path) -> None:
    async def handle(repeat: truba.RepeatData) -> None:
        await repeat.session.store(1_000)

    async with handled(tmp_path, handle) as (pipe, told):
        session = await pipe.new(7, b"a")
        await session.store(0)
        await until(lambda: pipe.node.machine.counts == {(7, Phase.STORED): 1} and not pipe.node.dispatcher.out)
        head = pipe.node.look_up(session.id)
        assert (head.attempts, head.epoch, head.cause) == (1, 1, truba.Cause.STORED)
        await asyncio.sleep(0)
        assert told() == []


async def test_who_is_cancelled_by_somebody_else_has_failed(tmp_path: Path) -> None:
    """A cancellation that is none of ours, e.g. of something that the handler awaits."""
    attempts: list[int] = []

    async def handle(repeat: truba.RepeatData) -> None:
        attempts.append(repeat.attempt)
        if repeat.attempt == 1:
            raise asyncio.CancelledError

    async with handled(tmp_path, handle) as (pipe, _):
        await (await pipe.new(7, b"a")).store(0)
        await until(lambda: not pipe.node.machine.counts)
    assert attempts == [1, 2]


async def test_who_is_cancelled_as_the_pipe_closes_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor has it finished, whatever it makes of that: however many there are, all of them are lost."""
    monkeypatch.setattr(presence, "LOST_AT_ONCE", 2)
    begun = 0

    async def handle(repeat: truba.RepeatData) -> None:
        nonlocal begun
        begun += 1
        with contextlib.suppress(asyncio.CancelledError) if begun % 2 else contextlib.nullcontext():
            await asyncio.sleep(60)

    async with handled(tmp_path, handle) as (pipe, told):
        for _ in range(8):
            await (await pipe.new(7, b"a")).store(0)
        await until(lambda: begun == 8)
    assert told() == []
    kind = truba.Kind(7, "transfer", handle, recovery_delay_s=60)
    async with truba.open(tmp_path, kinds=[kind]) as pipe:
        causes = [head.cause for head in pipe.node.machine.scan()]
        assert len(causes) == 8
        assert set(causes) <= {truba.Cause.LOST, truba.Cause.RESTART}


async def test_who_goes_on_after_a_cancel_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe closes when it ends, and not before: whose fault that is should not be a riddle."""
    monkeypatch.setattr(tasks, "LATE_S", 0.05)
    begun, deaf = asyncio.Event(), True

    async def handle(_: truba.RepeatData) -> None:
        begun.set()
        while deaf:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async with handled(tmp_path, handle) as (pipe, told):
        session = await pipe.new(7, b"a")
        await session.store(0)
        await begun.wait()
        closing = asyncio.create_task(pipe.close())
        await until(lambda: bool(told()))
        assert not closing.done()
        deaf = False
        await closing
    (said,) = told()
    assert said.startswith(f"cancelled 0.05 s ago, 1 go on (handler {session.id}), and the stop waits until they end")


async def test_who_is_late_is_stopped(tmp_path: Path) -> None:
    """Its session goes to the next one, and both at work on it at once would be two owners."""
    ends: list[str] = []

    async def handle(repeat: truba.RepeatData) -> None:
        if repeat.attempt > 1:
            ends.append(f"finished, {repeat.cause}")
            return
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            ends.append(str(error))
            raise

    async with handled(tmp_path, handle, handler_timeout_s=0.2) as (pipe, told):
        session = await pipe.new(7, b"a")
        await session.store(0)
        await until(lambda: not pipe.node.machine.counts)
        assert told() == []
    assert sorted(ends) == ["finished, late", f"session {session.id} was taken away: late"]
