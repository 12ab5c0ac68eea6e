"""The digest of a large state is read a little in each turn of the loop, and is of one state."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.node.world import nobody
from truba.clock import SystemClock
from truba.clustered.host import DIGEST_STEPS, DIGEST_TRIES, MemberHost
from truba.errors import Unavailable
from truba.kinds import Kind
from truba.machine.digest import state_digest
from truba.machine.machine import Machine
from truba.store.memory import MemoryStore
from truba.types import Position

SESSIONS = 10 * DIGEST_STEPS


class Place:
    """A follower that has read so many sessions."""

    def __init__(self) -> None:
        self.machine = Machine(MemoryStore(), {7: Kind(7, "transfer", nobody)})
        self.machine.begin(1)
        self.log = SimpleNamespace()
        member = SimpleNamespace(name="a", machine=self.machine, node=None)
        storage = SimpleNamespace(log=self.log)
        self.host = MemberHost(cast(Any, member), cast(Any, storage), bytes(16), SystemClock(), tuple)
        for _ in range(SESSIONS):
            self.grow()

    def grow(self) -> None:
        self.machine.apply(self.machine.create(7, 0, [b"a"]))
        self.log.tail = Position(self.machine.term, self.machine.seq, bytes(16))

    async def grow_in_turns(self, times: int) -> None:
        for _ in range(times):
            for _ in range(3):
                await asyncio.sleep(0)
            self.grow()


async def test_others_have_their_turns_meanwhile() -> None:
    place, turns = Place(), 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with asyncio.TaskGroup() as tasks:
        counting = tasks.create_task(count())
        found = await place.host.digest()
        counting.cancel()
    assert turns > SESSIONS // DIGEST_STEPS // 2
    assert (found.term, found.seq, found.digest) == (1, place.machine.seq, state_digest(place.machine))


async def test_what_changes_meanwhile_is_read_anew() -> None:
    place = Place()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(place.grow_in_turns(1))
        found = await place.host.digest()
    assert (found.seq, found.digest) == (place.machine.seq, state_digest(place.machine))


async def test_what_changes_all_the_time_cannot_be_read() -> None:
    place = Place()
    async with asyncio.TaskGroup() as tasks:
        growing = tasks.create_task(place.grow_in_turns(100 * DIGEST_TRIES))
        with pytest.raises(Unavailable, match="a is too busy: its state changes while it is read"):
            await place.host.digest()
        growing.cancel()
