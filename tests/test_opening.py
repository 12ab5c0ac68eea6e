"""What `open` and `connect` return: opened once, however often, and by however many, it is awaited."""

from __future__ import annotations

import asyncio

import pytest

from truba.opening import Opening


class Opened:
    async def close(self) -> None:
        pass


async def test_it_is_opened_once_even_by_two_at_a_time() -> None:
    begun: list[Opened] = []

    async def begin() -> Opened:
        begun.append(opened := Opened())
        await asyncio.sleep(0)
        return opened

    opening = Opening(begin)

    async def enter() -> Opened:
        async with opening as opened:
            return opened

    first, second = await asyncio.gather(enter(), enter(), return_exceptions=True)
    assert [first] == begun
    assert isinstance(second, RuntimeError)
    with pytest.raises(RuntimeError, match="opened already"):
        await opening


async def test_what_could_not_be_opened_may_be_tried_again() -> None:
    tries = iter((OSError("not yet"), Opened()))

    async def begin() -> Opened:
        if isinstance(trouble := next(tries), OSError):
            raise trouble
        return trouble

    opening = Opening(begin)
    with pytest.raises(OSError, match="not yet"):
        await opening
    assert isinstance(await opening, Opened)
