"""Handlers from hell: many cases in jumping time, and a real pipe with a handful of them at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import truba
from tests.hell.case import case
from tests.hell.handlers import (
    Babbling,
    Boasting,
    Chattering,
    Deaf,
    DiesEarly,
    DiesLate,
    Dripping,
    Failing,
    Idle,
    Resets,
    Service,
    Silent,
)
from tests.hell.real import Guest, Place, place
from tests.service.process import Server, Servers, kind, servers
from truba.client.admin import Admin
from truba.testing.ports import free_ports
from truba.transports.dial import REDIAL
from truba.types import Phase

CASES = (*range(30), 65)
"""65: many large sessions granted to a handler that reads nothing, in one turn of the loop."""

ILL = (Resets, Silent, Dripping, Babbling, Boasting, DiesEarly, DiesLate, Deaf, Idle, Failing, Chattering)
WELL, NOBODYS = 1, 2
CONCURRENCY = 64  # by default
SESSIONS = 500  # of each ill kind: six thousand together
PATIENCE_S = 60.0
RECORD = bytes(1_000)


@pytest.mark.parametrize("n", CASES)
def test_hell(n: int) -> None:
    case(n)


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Servers]:
    yield from servers(tmp_path)


async def _leave(pipe: truba.client.remote.RemotePipe, number: int, count: int) -> list[str]:
    """Sessions of a kind, due at once; their ids in the order of their Stores."""
    sessions = [await pipe.new(number, b"%d" % at, RECORD) for at in range(count)]
    await asyncio.gather(*(session.store(0) for session in sessions))
    return [str(session.id) for session in sessions]


async def _wait(admin: Admin, number: int, wanted: dict[Phase, int], patience_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(patience_s):
        while True:
            counts = {phase: count for phase, count in (await admin.kinds())[number].sessions.items() if count}
            if counts == {phase: count for phase, count in wanted.items() if count}:
                return
            await asyncio.sleep(0.02)


async def test_a_real_pipe_among_handlers_from_hell(pipes: Servers) -> None:
    """Thousands of sessions due at once for twelve kinds of bad handlers: the healthy kind's come in order and at once,
    the pipe's memory and connections stay within their bounds, nothing is lost, and once all are well all is done.
    """
    loop = asyncio.get_running_loop()
    troubles: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    async with AsyncExitStack() as stack:
        well = await stack.enter_async_context(place(Guest(WELL), Service))
        ill = [await stack.enter_async_context(place(Guest(number), make)) for number, make in enumerate(ILL, 3)]
        (port,) = free_ports(1)
        nobody = f"truba://127.0.0.1:{port}"
        settings: dict[str, object] = {
            "handler_timeout": "1s",
            "max_attempts": 0,
            "backoff": {"base": "2s", "cap": "5s"},
            "breaker": {"cap": "5s"},
        }
        text = kind(WELL, "well", well.url) + kind(NOBODYS, "nobody", nobody, **settings)
        text += "".join(kind(one.record.kind, one.make.__name__, one.url, **settings) for one in ill)
        server = await asyncio.to_thread(pipes.start, text, node='output_bytes_max = "64KiB"')
        pipe = await stack.enter_async_context(truba.connect(server.url))
        admin = await stack.enter_async_context(Admin.over(server.url))
        before_bytes, began_s = server.rss_bytes(), time.monotonic()
        numbers = [NOBODYS, *(one.record.kind for one in ill)]
        for number in numbers:
            await _leave(pipe, number, SESSIONS)
        mine = await _leave(pipe, WELL, 200)
        await _wait(admin, WELL, {})
        assert [id_text.decode() for id_text, _, _ in well.record.handed_over] == mine
        async with asyncio.timeout(PATIENCE_S):
            while not _tried(ill):  # noqa: ASYNC110 - in the pipe's own time
                await asyncio.sleep(0.02)
        mine += await _leave(pipe, WELL, 200)
        await _wait(admin, WELL, {})
        assert [id_text.decode() for id_text, _, _ in well.record.handed_over] == mine
        await _nothing_is_lost(admin, numbers)
        _bounded(server, before_bytes, began_s, [well, *ill])
        healed = await stack.enter_async_context(place(Guest(NOBODYS), Service, port))
        for one in ill:
            one.mend()
        for one in (healed, *ill):
            await _wait(admin, one.record.kind, {})
            assert one.peak == 1
        _bounded(server, before_bytes, began_s, [well, healed, *ill])
    assert not troubles, troubles[0]
    assert all(line["level"] in ("info", "warning") for line in server.logged)


def _tried(ill: list[Place]) -> bool:
    """Have the bad ones shown what they are? Connections were dialled again, sessions timed out or came back, and
    the breaker has tried more of them, one at a time.
    """
    by_name = {one.make.__name__: one for one in ill}
    again = all(by_name[name].dials >= 4 for name in ("Resets", "DiesEarly"))
    return again and all(len(by_name[name].record.handed_over) > CONCURRENCY + 2 for name in ("Idle", "Failing"))


async def _nothing_is_lost(admin: Admin, numbers: list[int]) -> None:
    kinds = await admin.kinds()
    for number in numbers:
        name, phases = kinds[number].name, kinds[number].sessions
        if name not in ("DiesLate", "Babbling"):
            assert phases[Phase.STORED] + phases[Phase.REPEATING] == SESSIONS, f"{name}: {phases}"
        assert phases[Phase.REPEATING] <= 64, f"{name}: {phases}"
        assert phases[Phase.PARKED] == 0


def _bounded(server: Server, before_bytes: int, began_s: float, places: list[Place]) -> None:
    """All sessions are young, and in memory: what they hold, and as much again for what becomes of them."""
    dials_max = 20 + (time.monotonic() - began_s) / (REDIAL.base_s / 2)
    for one in places:
        assert one.peak <= 1, f"{one.make.__name__}: {one.peak} connections at once"
        assert one.dials <= dials_max, f"{one.make.__name__}: dialled {one.dials} times"
    grown_bytes = server.rss_bytes() - before_bytes
    assert grown_bytes < (48 << 20) + 12 * SESSIONS * 4 * len(RECORD), f"{grown_bytes >> 20} MiB more"
