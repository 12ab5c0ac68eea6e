"""The wire is cut at every byte of a dialogue, in both directions: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import random

import pytest

import truba
from tests.client.inprocess import Proxy, served
from truba.client import remote
from truba.client.remote import RemotePipe
from truba.types import Phase

ALL = [b"first", b"second", b"third", b"fourth"]


async def dialogue(pipe: RemotePipe) -> None:
    """Three sessions: one is left open, one is stored, one is done."""
    left = await pipe.new(7, b"first")
    await left.append(b"second")
    stored = await pipe.new(7)
    await stored.append(b"dropped", b"dropped too")
    await stored.replace(b"first")
    await asyncio.gather(left.append(b"third"), stored.append(b"second"))
    done = await pipe.new(7, b"gone")
    await asyncio.gather(left.touch(), done.delete(), stored.store(3600))
    await left.append(b"fourth")


async def through(cuts: list[tuple[str, int]]) -> Proxy:
    """The dialogue over a wire that is cut so; then what the pipe holds is looked at."""
    async with served() as pipe, Proxy(pipe.listen, cuts) as proxy, truba.connect(proxy.url) as client:
        await dialogue(client)
        assert await pipe.sessions() == [(Phase.ACTIVE, ALL), (Phase.STORED, ALL[:2])]
        count = await pipe.events()
        assert (count["Created"], count["Appended"], count["Replaced"]) == (3, 5, 1), count
        assert (count["Deleted"], count["Stored"]) == (1, 1), count
    return proxy


async def test_cut_at_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.secrets, "randbits", lambda bits: 1 << (bits - 1))  # tags of one length: so many bytes
    whole = await through([])
    assert whole.taken == 1
    places = [("up", k) for k in range(1, whole.up_bytes)] + [("down", k) for k in range(1, whole.down_bytes)]
    for place in places:
        proxy = await through([place])
        assert proxy.taken == 2, place


@pytest.mark.parametrize("seed", range(40))
async def test_cut_again_and_again(seed: int) -> None:
    dice = random.Random(seed)
    cuts = [(dice.choice(["up", "down"]), dice.randrange(1, 400)) for _ in range(20)]
    await through(cuts)


async def test_a_pipe_killed_in_the_middle() -> None:
    """Killed and started again between any two steps of the dialogue, on the same log."""
    for step in range(1, 14):
        async with served() as pipe, truba.connect(pipe.url) as client:
            working = asyncio.create_task(dialogue(client))
            for _ in range(step * 3):
                await asyncio.sleep(0)
            await pipe.kill()
            await pipe.start()
            await working
            assert await pipe.sessions() == [(Phase.ACTIVE, ALL), (Phase.STORED, ALL[:2])]
