"""However many are turned away: few lines, none of them left out in silence, and all of them counted."""

from __future__ import annotations

import asyncio

from truba.rejections import Rejections
from truba.testing.jump import JumpClock, run_jumping


class Told:
    """Lines of the log, and when each was written, in seconds from the start."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, dict[str, object]]] = []
        self._start_s = asyncio.get_running_loop().time()

    def tell(self, cause: str, **fields: object) -> None:
        self.lines.append((round(asyncio.get_running_loop().time() - self._start_s), cause, fields))


def test_a_flood_is_a_few_lines_a_minute_and_how_many_more_there_were() -> None:
    async def play() -> None:
        told = Told()
        rejections = Rejections(told.tell)
        for number in range(3_000):  # ten a second
            rejections.add("wrong token", peer=number)
            await asyncio.sleep(0.1)
        await asyncio.sleep(1_000)
        assert rejections.counts == {"wrong token": 3_000}
        one_by_one = [fields["peer"] for _, _, fields in told.lines if "peer" in fields]
        summaries = [(at_s, fields) for at_s, _, fields in told.lines if "peer" not in fields]
        assert len(one_by_one) == 50
        assert one_by_one[:10] == list(range(10))
        assert [at_s for at_s, _ in summaries] == [60, 120, 180, 240, 300]
        assert {fields["within_s"] for _, fields in summaries} == {60.0}
        assert len(one_by_one) + sum(int(str(fields["left_out"])) for _, fields in summaries) == 3_000

    run_jumping(play(), JumpClock())


def test_causes_do_not_hide_one_another_and_few_are_told_as_they_are() -> None:
    async def play() -> None:
        told = Told()
        rejections = Rejections(told.tell, lines_max=2)
        for _ in range(5):
            rejections.add("wrong token", peer="a")
        rejections.add("no TLS connection", peer="b", error="why")
        assert told.lines[-1] == (0, "no TLS connection", {"peer": "b", "error": "why"})
        await asyncio.sleep(200)
        assert told.lines[3:] == [(60, "wrong token", {"left_out": 3, "within_s": 60.0})]
        rejections.add("wrong token", peer="c")
        assert told.lines[4:] == [(200, "wrong token", {"peer": "c"})]

    run_jumping(play(), JumpClock())


def test_what_is_left_out_is_told_at_the_end_too() -> None:
    async def play() -> None:
        told = Told()
        rejections = Rejections(told.tell, lines_max=1)
        for _ in range(4):
            rejections.add("wrong token")
        rejections.close()
        assert told.lines[1:] == [(0, "wrong token", {"left_out": 3, "within_s": 60.0})]
        await asyncio.sleep(100)
        assert len(told.lines) == 2

    run_jumping(play(), JumpClock())
