"""The log on disk: one frame per batch, one write and one sync per frame, committed on the loop or on a thread.

Opening recovers what a crash left (`recovery`); appending writes into segments that hold zeros already; a housekeeper
makes the next segments ready and recycles trimmed ones. Any error poisons the log for good: after a failed sync the
system may have dropped the data and call the next sync a success, so nothing is ever tried again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from truba.errors import DataDamaged, LogPoisoned
from truba.histogram import Histogram
from truba.log.directory import Directory, refusing
from truba.log.disk import Disk, OsDisk, write_all
from truba.log.frame import BODY_BYTES_MAX, Frame, frame_bytes
from truba.log.housekeeper import Housekeeper
from truba.log.opening import Kept, Opened, check_options, open_directory
from truba.log.pace import Pace
from truba.log.recovery import Loaded, read_frames
from truba.log.segment import HEADER_BYTES, SegmentHeader
from truba.ports.log import Done, LogBatch, Space
from truba.types import ORIGIN, Position

Commit = Literal["auto", "inline", "thread"]

BATCH_BYTES_MAX = 16 << 20
"""Of events in a batch: written in tens of milliseconds, held in memory twice."""

SYNC_SAMPLE = 8
"""Of so many batches one goes into `sync_us`."""

INLINE_BODY_BYTES_MAX = 256 << 10  # hashing and writing more than this takes the loop longer than two thread hops


class FileLog:
    """One batch under way at a time. Make it with `FileLog.open`.

    `tail`, `space` and `size_bytes` keep their last values after a failure; calls raise LogPoisoned.
    """

    def __init__(
        self,
        directory: Directory,
        opened: Opened,
        housekeeper: Housekeeper,
        *,
        inline_sync_s: float,
        commit: Commit,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        disk = directory.disk
        self._directory = directory
        self._framing = opened.framing
        self._kept = opened.kept  # the last one is the live segment
        self._tail = opened.tail
        self._housekeeper = housekeeper
        self._pace = Pace(inline_sync_s)
        self._commit_where = commit
        self._loop = loop
        self._failure: BaseException | None = None
        self._closed = False
        self._commits = 0
        self.sync_us = Histogram()
        """How long write and sync of a batch took, microseconds; of every 8th."""
        self._done: Done | None = None  # of the batch on the commit thread
        self._outcome: tuple[float, BaseException | None] = (0.0, None)
        self._work: SimpleQueue[LogBatch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        live = opened.kept[-1]
        self._fd = directory.open_segment(live.header)
        self._number = live.header.number
        self._offset = HEADER_BYTES + live.frames_bytes
        self._end = live.header.size
        # Bound once: these run for every batch.
        self._encode = opened.framing.encode
        self._pwritev = disk.pwritev
        self._fdatasync = disk.fdatasync
        self._steady_s = disk.steady_s
        self.cut = opened.cut
        """The torn tail that opening found and cut; `cut_kept` is the file that keeps its bytes."""
        self.cut_kept = opened.cut_kept

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        segment_bytes: int = 32 << 20,
        reserve_bytes: int = 256 << 20,
        inline_sync_s: float = 0.0005,
        commit: Commit = "auto",
        housekeeping: Literal["thread", "inline"] = "thread",
        loop: asyncio.AbstractEventLoop | None = None,
        disk: Disk | None = None,
        log_id: bytes | None = None,
    ) -> FileLog:
        """Open the log in that directory, made if it is not there, and recover what a crash left. Raises DataError.

        `segment_bytes`: size of a segment file, a multiple of 512. `reserve_bytes`: free space of the file system below
        which `space` is "low". `inline_sync_s`: how long write + sync may take on average for batches to be committed
        on the event loop; `commit` fixes the place instead. With neither a running loop nor `loop` it is the caller.
        `log_id`: 16 bytes that a new log gets as its id, and that a log which is there must have (else DataForeign).
        """
        check_options(segment_bytes, log_id)
        if loop is None:
            with suppress(RuntimeError):
                loop = asyncio.get_running_loop()
        if loop is None and commit != "inline":
            if commit == "thread":
                raise ValueError('commit="thread" needs an event loop to call back')
            commit = "inline"
        disk = disk or OsDisk()
        directory = Directory.create(path, disk)
        try:
            with refusing(path):
                opened = open_directory(directory, segment_bytes, log_id)
                housekeeper = Housekeeper(
                    directory,
                    opened.framing.log_id,
                    opened.ahead,
                    opened.kept[-1].header.number,
                    segment_bytes,
                    reserve_bytes,
                )
                log = cls(directory, opened, housekeeper, inline_sync_s=inline_sync_s, commit=commit, loop=loop)
        except BaseException:
            directory.close()
            raise
        try:
            housekeeper.start(log._fail, threaded=housekeeping == "thread")
        except BaseException:
            log.close()
            raise
        return log

    @property
    def log_id(self) -> bytes:
        """16 bytes that tell this log from every other."""
        return self._framing.log_id

    @property
    def tail(self) -> Position:
        return self._tail

    @property
    def begin(self) -> Position:
        """What the first kept batch follows; ORIGIN unless the log was trimmed, or was planted in the middle."""
        return self._kept[0].begin

    @property
    def window(self) -> int:
        return 1

    @property
    def batch_bytes_max(self) -> int:
        return BATCH_BYTES_MAX

    @property
    def batch_bytes_min(self) -> int:
        return 0

    @property
    def space(self) -> Space:
        return self._housekeeper.space

    @property
    def size_bytes(self) -> int:
        """Of all kept frames, headers and padding included; a sealed segment counts whole."""
        return sum(segment.frames_bytes for segment in self._kept[:-1]) + self._offset - HEADER_BYTES

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    def append(self, batch: LogBatch, done: Done) -> None:
        tail = self._tail
        if (
            self._failure is not None
            or self._closed
            or self._done is not None
            or batch.first_seq != tail.seq + 1
            or batch.term < tail.term
            or batch.count < 1
            or len(batch.body) > BODY_BYTES_MAX
        ):
            raise self._refusal(batch)
        if self._commit_where == "inline" or (
            self._commit_where == "auto"
            and self._pace.inline
            and len(batch.body) <= INLINE_BODY_BYTES_MAX
            and (self._offset + frame_bytes(len(batch.body)) <= self._end or self._housekeeper.ahead)
        ):
            try:
                self._pace.took(self._commit(batch))
            except BaseException as error:
                self._fail(error)  # an interrupted write is as unknown as a failed one
                done(self._poisoned())
                if not isinstance(error, Exception):
                    raise
            else:
                done(None)
            return
        if self._thread is None:
            thread = threading.Thread(target=self._commit_thread, name="truba-log-commit", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no more: else batches would wait for one that never was
                self._fail(error)
                raise self._poisoned() from error
            self._thread = thread
        self._done = done
        self._work.put(batch)

    def confirm(self, done: Done) -> None:
        """At once: the directory is locked, nobody else can write."""
        self._usable()
        done(None)

    def read(self, after_seq: int) -> Iterator[tuple[LogBatch, Position]]:
        self._usable()
        through = self._tail.seq
        kept = list(self._kept)
        if after_seq < kept[0].begin.seq:
            raise self._trimmed(after_seq)
        if after_seq > through:
            raise ValueError(f"no batch ends with seq {after_seq}: the log ends with {through}")
        if after_seq == through:
            return iter(())
        first = max(i for i, segment in enumerate(kept) if segment.begin.seq <= after_seq)
        frames = self._frames(kept[first:], through)
        at = kept[first].begin.seq
        while at < after_seq:
            at = next(frames).position.seq
        if at != after_seq:
            raise ValueError(f"no batch ends with seq {after_seq}")
        return ((frame.batch, frame.position) for frame in frames)

    def position_at(self, seq: int) -> Position | None:
        """Reads at most one segment. Also answers for the place where a trimmed log begins."""
        self._usable()
        if seq == 0:
            return ORIGIN
        if seq == self._tail.seq:
            return self._tail
        kept = list(self._kept)
        if seq == kept[0].begin.seq:
            return kept[0].begin
        if not kept[0].begin.seq < seq < self._tail.seq:
            return None
        first = max(i for i, segment in enumerate(kept) if segment.begin.seq < seq)
        for frame in self._frames(kept[first:], seq):
            if frame.position.seq >= seq:
                return frame.position if frame.position.seq == seq else None
        return None

    def trim(self, through_seq: int) -> None:
        """Drops whole segments only, and never the last one that holds a durable frame: it tells where the log ends."""
        self._usable()
        dropped = []
        while len(self._kept) > 1 and self._kept[1].begin.seq <= through_seq and self._kept[1].begin != self._tail:
            dropped.append(self._kept.pop(0).header)
        self._housekeeper.retire(dropped)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._settle()
        self._housekeeper.stop()
        with suppress(OSError):  # everything that was called durable was synced
            self._directory.disk.close(self._fd)
        self._directory.close()

    def _commit(self, batch: LogBatch) -> float:
        """Make one batch durable; how many seconds write and sync took."""
        size = frame_bytes(len(batch.body))
        if self._offset + size > self._end:
            if HEADER_BYTES + size > self._housekeeper.segment_bytes:
                return self._commit_alone(batch)
            self._next_segment()
        parts, size, chain = self._encode(self._number, self._tail, batch)
        started_s = self._steady_s()
        wrote = self._pwritev(self._fd, parts, self._offset)
        if wrote != size:
            write_all(self._directory.disk, self._fd, [memoryview(b"".join(parts))[wrote:]], self._offset + wrote)
        self._fdatasync(self._fd)
        took_s = self._steady_s() - started_s
        self._offset += size
        self._tail = Position(batch.term, batch.first_seq + batch.count - 1, chain)
        self._commits += 1
        if self._commits % SYNC_SAMPLE == 0:
            self.sync_us.add(round(took_s * 1e6))
        return took_s

    def _commit_alone(self, batch: LogBatch) -> float:
        """A batch larger than a segment gets one of its own, which appears with its frame or not at all."""
        started_s = self._steady_s()
        parts, size, chain = self._encode(self._number + 1, self._tail, batch)
        header, fd = self._housekeeper.make_full(HEADER_BYTES + size, parts)
        self._enter(header, fd)
        self._offset = header.size
        self._tail = Position(batch.term, batch.first_seq + batch.count - 1, chain)
        return self._steady_s() - started_s

    def _next_segment(self) -> None:
        self._enter(*self._housekeeper.take())

    def _enter(self, header: SegmentHeader, fd: int) -> None:
        """Go on in an empty segment; the live one is sealed."""
        sealed = self._kept[-1]._replace(frames_bytes=self._offset - HEADER_BYTES)
        self._directory.disk.close(self._fd)
        self._kept[-1:] = [sealed, Kept(header, self._tail, 0)]
        self._fd, self._number, self._offset, self._end = fd, header.number, HEADER_BYTES, header.size

    def _commit_thread(self) -> None:
        assert self._loop is not None
        while (batch := self._work.get()) is not None:
            try:
                self._outcome = (self._commit(batch), None)
            except Exception as error:
                self._fail(error)
                self._outcome = (0.0, error)
            # A loop that is closed already cannot be told; `close` then tells the outcome.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        """On the loop: tell how the batch on the thread went, unless `close` has done so."""
        done, self._done = self._done, None
        if done is None:
            return
        took_s, error = self._outcome
        if error is None:
            if not self._pace.inline:
                # Otherwise it was here for its size, or for a segment, which tells nothing of other batches.
                self._pace.took(took_s)
            done(None)
        else:
            done(self._poisoned())

    def _frames(self, kept: list[Kept], through_seq: int) -> Iterator[Frame]:
        for _, frame in read_frames(self._framing, [segment.header for segment in kept], self._load, through_seq):
            yield frame

    def _load(self, header: SegmentHeader) -> Loaded:
        """A segment's bytes. They are good only if it was not trimmed, and so recycled, meanwhile."""
        try:
            loaded = self._directory.load(header)
        except (DataDamaged, FileNotFoundError):
            if header.number >= self._kept[0].header.number:
                raise
        else:
            if header.number >= self._kept[0].header.number:
                return loaded
        raise self._trimmed(0)

    def _trimmed(self, after_seq: int) -> DataDamaged:
        begin = self._kept[0].begin
        return DataDamaged(
            f"the log in {self._directory.path} begins after seq {begin.seq}: events after {after_seq} were asked for, "
            "and have been trimmed"
        )

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error

    def _poisoned(self) -> LogPoisoned:
        cause = self._failure
        error = LogPoisoned(
            f"the log in {self._directory.path} failed and cannot be trusted any more: {cause or repr(cause)}; "
            "end the process and start again, which recovers what was made durable"
        )
        error.__cause__ = cause
        return error

    def _usable(self) -> None:
        if self._failure is not None:
            raise self._poisoned()
        if self._closed:
            raise ValueError("the log is closed")

    def _refusal(self, batch: LogBatch) -> Exception:
        if self._failure is not None:
            return self._poisoned()
        if self._closed:
            return ValueError("the log is closed")
        if self._done is not None:
            return ValueError("a batch is under way already: the log's window is 1")
        if len(batch.body) > BODY_BYTES_MAX:
            return ValueError(f"a batch of {len(batch.body)} bytes is over the format's limit of {BODY_BYTES_MAX}")
        return ValueError(
            f"a batch of term {batch.term} with {batch.count} events from seq {batch.first_seq} "
            f"cannot follow {self._tail.term}-{self._tail.seq}"
        )
