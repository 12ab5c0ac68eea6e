"""Which message of the stream leads to which event: a few places of many, so that the stream can be trimmed. Pure."""

from __future__ import annotations

from truba.cluster.rule import Cursor

APART_S = 0.25
KEPT = 4096


class Marks:
    """Places of valid entries, oldest first. When there are too many, every other one is dropped."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, int]] = []  # event, message
        self._last_s = float("-inf")

    def add(self, cursor: Cursor, now_s: float) -> None:
        """`cursor` is that of a valid entry, whose message a trimmed stream may begin with."""
        if now_s - self._last_s < APART_S:
            return
        self._last_s = now_s
        self._marks.append((cursor.position.seq, cursor.stream_seq))
        if len(self._marks) > KEPT:
            self._marks = self._marks[::2]

    def before(self, seq: int) -> int:
        """The latest marked message that leads to event `seq` or an earlier one; 0: none is marked."""
        return max((message for event, message in self._marks if event <= seq), default=0)

    def forget(self, stream_seq: int) -> None:
        """The stream begins with that message now."""
        self._marks = [mark for mark in self._marks if mark[1] >= stream_seq]
