"""Keeps the next segments ready, away from the commit path, and watches the space of the disk. Never writes frames.

Segments ahead of the live one are also the reserve of a full disk: while no further one can be made, `space` is "low",
and what frees data still fits into those that are there.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from truba.log.directory import Directory, NamesUnsynced
from truba.log.segment import SegmentHeader
from truba.ports.log import Space

AHEAD_MIN = 1  # segments ready at any time
AHEAD_MAX = 2  # trimmed segments are recycled up to this many; further ones are given back to the file system
LOOK_AGAIN_S = 1.0  # how often free space is looked at


class Housekeeper:
    """`ahead`: empty segments with their descriptors, in order, the first of which is the next to be used."""

    def __init__(
        self,
        directory: Directory,
        log_id: bytes,
        ahead: deque[tuple[SegmentHeader, int]],
        live_number: int,
        segment_bytes: int,
        reserve_bytes: int,
    ) -> None:
        self.ahead = ahead
        self.space: Space = "plenty"
        self.segment_bytes = segment_bytes
        self._directory = directory
        self._log_id = log_id
        self._last_number = ahead[-1][0].number if ahead else live_number
        self._reserve_bytes = reserve_bytes
        self._retired: deque[SegmentHeader] = deque()
        self._making = threading.Lock()  # held by whoever makes or drops segments
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._fail: Callable[[BaseException], None] = lambda _: None

    def start(self, fail: Callable[[BaseException], None], *, threaded: bool) -> None:
        """`fail` hears of any error but a full disk. Without a thread the work is done where it arises."""
        self._fail = fail
        if threaded:
            thread = threading.Thread(target=self._run, name="truba-log-housekeeper", daemon=True)
            thread.start()  # RuntimeError: the system gives no more
            self._thread = thread
        else:
            self.keep()

    def take(self) -> tuple[SegmentHeader, int]:
        """The next segment; made on the spot if none is ready. OSError if that fails: the reserve is used up too."""
        try:
            taken = self.ahead.popleft()
        except IndexError:
            with self._making:
                made = self.ahead.popleft() if self.ahead else self._make()
            assert made is not None, "nobody tells it to stop"
            taken = made
        self._nudge()
        return taken

    def make_full(self, size: int, parts: list[bytes]) -> tuple[SegmentHeader, int]:
        """The next segment, made of one large frame. The empty one that has its number, if any, is replaced by it."""
        with self._making:
            number = self._last_number + 1
            if self.ahead:
                replaced, fd = self.ahead.popleft()
                self._directory.disk.close(fd)
                number = replaced.number
            header = SegmentHeader(self._log_id, number, size)
            fd = self._directory.make_full_segment(header, parts)
            self._last_number = max(self._last_number, number)
        self._nudge()
        return header, fd

    def retire(self, headers: list[SegmentHeader]) -> None:
        """Segments that are no longer needed."""
        if headers:
            self._retired.extend(headers)
            self._nudge()

    def keep(self) -> None:
        """Do what is to be done now."""
        try:
            with self._making:
                self.space = "plenty" if self._make_ready() else "low"
        except Exception as error:  # whatever it was, the log must not go on
            self._fail(error)

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        for _, fd in self.ahead:
            with suppress(OSError):  # they hold nothing
                self._directory.disk.close(fd)

    def _make_ready(self) -> bool:
        """Whether the reserve is there."""
        directory = self._directory
        while self._retired and not self._stopping:
            old = self._retired[0]
            if len(self.ahead) < AHEAD_MAX and old.size == self.segment_bytes:
                try:
                    directory.put_away(old.number, self._last_number + 1)
                except OSError as error:
                    if not _is_full(error):
                        raise
                    return False
                self._retired.popleft()
                if not self._make_ahead():
                    return False
            else:
                directory.drop_segment(old.number)
                self._retired.popleft()
        free = directory.disk.free_bytes(str(directory.path))
        while len(self.ahead) < AHEAD_MIN and not self._stopping:
            if free < self._reserve_bytes + self.segment_bytes or not self._make_ahead():
                return False
            free = directory.disk.free_bytes(str(directory.path))
        return free >= self._reserve_bytes

    def _make_ahead(self) -> bool:
        """One more segment ahead, unless the log is being closed; False when the disk is full."""
        try:
            made = self._make(lambda: not self._stopping)
        except OSError as error:
            if not _is_full(error):
                raise
            return False
        if made is not None:
            self.ahead.append(made)
        return True

    def _make(self, go_on: Callable[[], bool] = lambda: True) -> tuple[SegmentHeader, int] | None:
        header = SegmentHeader(self._log_id, self._last_number + 1, self.segment_bytes)
        fd = self._directory.make_segment(header, go_on)
        if fd is None:
            return None
        self._last_number = header.number
        return header, fd

    def _nudge(self) -> None:
        if self._thread is not None:
            self._wake.set()
        else:
            self.keep()

    def _run(self) -> None:
        while not self._stopping:
            self.keep()
            self._wake.wait(LOOK_AGAIN_S)
            self._wake.clear()


def _is_full(error: OSError) -> bool:
    """Whether there is no space, and nothing but space is in doubt."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) and not isinstance(error, NamesUnsynced)
