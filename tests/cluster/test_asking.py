"""A question asked again while the first one waits for an answer that will not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from truba.cluster.asking import asked

Jump = Callable[[Coroutine[object, object, None]], None]


class Engine:
    """Its leader is dead for `dead_s`; what is asked then is told so after 2 s, by nobody but its own patience."""

    def __init__(self, dead_s: float) -> None:
        self._alive_s = asyncio.get_running_loop().time() + dead_s
        self.asked = self.dropped = 0

    async def ask(self) -> str:
        self.asked += 1
        if asyncio.get_running_loop().time() >= self._alive_s:
            return "here"
        try:
            await asyncio.sleep(2.0)
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        raise TimeoutError("no answer")


def test_a_new_leader_is_heard_of_before_the_old_one_s_silence_is_believed(jump: Jump) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        engine, before_s = Engine(dead_s=0.9), loop.time()
        assert await asked(engine.ask, 0.25) == "here"
        assert loop.time() - before_s == pytest.approx(1.0)
        await asyncio.sleep(0)
        assert (engine.asked, engine.dropped) == (5, 4)

    jump(main())


def test_silence_is_an_error_after_as_long_as_one_question_takes(jump: Jump) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        engine, before_s = Engine(dead_s=60.0), loop.time()
        with pytest.raises(TimeoutError, match="no answer"):
            await asked(engine.ask, 0.25)
        assert loop.time() - before_s == pytest.approx(2.0)
        await asyncio.sleep(0)
        assert engine.asked == engine.dropped + 1

    jump(main())


def test_whoever_gives_up_waiting_leaves_no_question_behind(jump: Jump) -> None:
    async def main() -> None:
        engine = Engine(dead_s=60.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):
                await asked(engine.ask, 0.25)
        await asyncio.sleep(0)
        assert engine.asked == engine.dropped == 3

    jump(main())
