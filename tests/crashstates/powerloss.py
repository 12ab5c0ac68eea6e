"""The file log on a disk that loses power at any point: what it must have, and what it may have, once it is open again.

`Ledger` is what the writer was told; `Story` is the log's life as a recording; `explore` starts the log from every
state that a crash may have left along that life.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tests.crashstates.record import Fact, Killed, Operation, RecordingDisk, Write
from tests.crashstates.states import Kept, State, Volume
from truba.errors import DataDamaged
from truba.log.file import FileLog
from truba.log.frame import SECTOR, frame_bytes
from truba.ports.log import LogBatch
from truba.testing.disk import SimulatedDisk
from truba.types import ORIGIN, Position

HOME = Path("/log")
LOG_ID = b"sixteen bytes id"

Entry = tuple[LogBatch, Position]


class Tried(NamedTuple):
    """From here on this batch may be in the log."""

    batch: LogBatch


class Sure(NamedTuple):
    """From here on it must be: it was acknowledged, or read by a process that had opened the log."""

    entry: Entry


class Opened(NamedTuple):
    """The log is open, and its last event is this."""

    tail: Position


class Trimmed(NamedTuple):
    """From here on the batches through this event may be gone."""

    through_seq: int


class Ledger:
    def __init__(self) -> None:
        self.sure: list[Entry] = []
        self.maybe: LogBatch | None = None
        self.trimmed_seq = 0

    def learn(self, what: object) -> None:
        match what:
            case Tried(batch):
                self.maybe = batch
            case Sure(entry):
                self.sure.append(entry)
                self.maybe = None
            case Opened():
                self.maybe = None  # it is there, and told as sure, or it never will be
            case Trimmed(seq):
                self.trimmed_seq = max(self.trimmed_seq, seq)

    @property
    def tail(self) -> Position:
        return self.sure[-1][1] if self.sure else ORIGIN

    def check(self, log: FileLog) -> list[Entry]:
        """What was not known before and is sure from now on: the log's entry for the batch that may be there."""
        found = list(log.read(log.begin.seq))
        assert log.begin.seq <= self.trimmed_seq, f"it begins after {log.begin}, and may through {self.trimmed_seq}"
        assert log.begin == ORIGIN or any(log.begin == position for _, position in self.sure), "it begins anywhere"
        sure = [entry for entry in self.sure if entry[1].seq > log.begin.seq]
        assert found[: len(sure)] == sure, f"sure through {self.tail.seq}, it has {_through(found)}"
        beyond = found[len(sure) :]
        assert [batch for batch, _ in beyond] in ([], [self.maybe]), f"nobody has written {_through(beyond)}"
        assert log.tail == (found[-1][1] if found else log.begin)
        return beyond


def _through(entries: list[Entry]) -> str:
    return ", ".join(f"{batch.first_seq}-{batch.last_seq}" for batch, _ in entries) or "nothing"


def open_log(
    disk: SimulatedDisk, segment_bytes: int, log_id: bytes | None = None, *, reserve_bytes: int = 0
) -> FileLog:
    return FileLog.open(
        HOME,
        disk=disk,
        segment_bytes=segment_bytes,
        reserve_bytes=reserve_bytes,
        commit="inline",
        housekeeping="inline",
        log_id=log_id,
    )


def append(log: FileLog, batch: LogBatch) -> Entry:
    """The acknowledged entry."""
    told: list[BaseException | None] = []
    log.append(batch, told.append)
    assert told == [None], told
    return batch, log.tail


class Shape(NamedTuple):
    """Of a life: how large segments and bodies are, how often the log is trimmed and killed, how full the disk is."""

    segment_bytes: int
    bodies: tuple[int, ...]
    trims: float
    kills: float  # what follows a batch: the process dies within a few operations, and the log is opened again
    low: float  # how often the disk is so full, when a process begins, that it makes no segment ahead

    @classmethod
    def any(cls, dice: random.Random) -> Shape:
        segment_bytes = SECTOR * dice.choice((4, 6, 8, 16, 33))
        sizes = (0, 10, 300, 408, 409, 700, 1500, segment_bytes // 2, segment_bytes - 700, segment_bytes + 1000)
        bodies = dice.sample(sizes, 4)
        return cls(segment_bytes, tuple(bodies), dice.choice((0, 0.1, 0.3)), dice.choice((0, 0.2)), 0.5)


def body_of(size: int, dice: random.Random) -> bytes:
    """Random, or zeros, or zeros in part: frames whose sectors look unwritten are the hard ones."""
    match dice.randrange(4):
        case 0:
            return bytes(size)
        case 1:
            cut = dice.randint(0, size)
            return dice.randbytes(cut) + bytes(size - cut)
        case _:
            return dice.randbytes(size)


def live(disk: RecordingDisk, ledger: Ledger, shape: Shape, dice: random.Random, batches: int) -> None:
    """A life of the log on that disk, written down there: open it, check it, append, trim, close."""

    def note(what: object) -> None:
        disk.note(what)
        ledger.learn(what)

    def opened() -> FileLog:
        reserve_bytes = 1 << 50 if dice.random() < shape.low else 0
        log = open_log(disk, shape.segment_bytes, LOG_ID, reserve_bytes=reserve_bytes)
        for entry in ledger.check(log):
            note(Sure(entry))
        note(Opened(log.tail))
        return log

    def step(log: FileLog) -> None:
        count = dice.randint(1, 5)
        term = max(1, log.tail.term) + (dice.random() < 0.1)
        batch = LogBatch(term, log.tail.seq + 1, count, body_of(dice.choice(shape.bodies), dice))
        note(Tried(batch))
        note(Sure(append(log, batch)))
        if dice.random() < shape.trims:
            seq = dice.choice(ledger.sure)[1].seq
            note(Trimmed(seq))
            log.trim(seq)

    def reborn() -> FileLog:
        """After a kill. Whoever mends what it finds may be killed too."""
        while True:
            disk.kill()
            disk.operations_left = dice.randint(0, 12) if dice.random() < 0.5 else -1
            try:
                return opened()
            except Killed:
                pass

    log = opened()
    for _ in range(batches):
        disk.operations_left = dice.randint(0, 12) if dice.random() < shape.kills else -1
        try:
            step(log)
            if dice.random() < 0.1:
                log.close()
                log = opened()
        except Killed:
            log = reborn()
    disk.operations_left = -1
    log.close()


class Counts:
    def __init__(self) -> None:
        self.states = 0
        self.same = 0  # states that had been met before
        self.cut = 0
        self.refused = 0  # of those where a refusal is legal


def points(
    disk: RecordingDisk, learn: Callable[[object], None] = lambda what: None
) -> Iterator[tuple[Volume, Ledger, Operation | None]]:
    """Along a recording: what the disk was, what was known, and what was done next. `learn` hears of each fact too."""
    volume, ledger = Volume(disk.start, disk.start_directories), Ledger()
    for each in disk.journal:
        if isinstance(each, Fact):
            ledger.learn(each.what)
            learn(each.what)
        else:
            yield volume, ledger, each
            volume.apply(each)
    yield volume, ledger, None


def recovered(state: State, ledger: Ledger, shape: Shape, counts: Counts, *, go_on: bool) -> RecordingDisk | None:
    """Open the log as the crash left it. The recording of that, or None where it was refused, and might be.

    `go_on`: then append to it, and open it once more.
    """
    disk = RecordingDisk(state.image, state.directories)
    counts.states += 1
    now = Ledger()
    now.sure, now.maybe, now.trimmed_seq = list(ledger.sure), ledger.maybe, ledger.trimmed_seq
    for entry in now.sure:
        disk.note(Sure(entry))
    disk.note(Trimmed(now.trimmed_seq))
    if now.maybe is not None:
        disk.note(Tried(now.maybe))
    try:
        log = open_log(disk, shape.segment_bytes, LOG_ID)
    except DataDamaged as error:
        if state.kept is Kept.ALL:
            raise AssertionError(f"refused without need: {error}") from error
        counts.refused += 1
        return None
    for entry in now.check(log):
        disk.note(Sure(entry))
        now.learn(Sure(entry))
    disk.note(Opened(log.tail))
    now.learn(Opened(log.tail))
    if log.cut is not None:
        counts.cut += 1
        assert log.cut_kept is not None
        assert log.cut.first_seq == log.tail.seq + 1
        assert str(log.cut_kept) in disk.files, "the cut bytes were not kept"
    if go_on:
        last = LogBatch(max(1, log.tail.term), log.tail.seq + 1, 1, b"after the crash")
        disk.note(Tried(last))
        entry = append(log, last)
        disk.note(Sure(entry))
        now.learn(Sure(entry))
    log.close()
    if go_on:
        again = open_log(disk, shape.segment_bytes, LOG_ID)
        assert now.check(again) == []
        assert again.cut is None
        again.close()
    return disk


def explore(
    disk: RecordingDisk,
    shape: Shape,
    dice: random.Random,
    counts: Counts,
    *,
    states: int,
    deeper: float = 0.0,
    seen: set[int] | None = None,
) -> None:
    """Crash at every point of the recording, in up to `states` ways, and recover.

    `deeper`: how likely a recovery is recorded in its turn, and crashes at one of its own points, in a few ways.
    """
    seen = set() if seen is None else seen
    for number, (volume, ledger, _) in enumerate(points(disk)):
        for state in (volume.now(), *volume.crashes(dice, states)):
            key = hash((frozenset(state.image.items()), state.kept, len(ledger.sure), ledger.maybe))
            if key in seen:
                counts.same += 1
                continue
            seen.add(key)
            try:
                again = recovered(state, ledger, shape, counts, go_on=dice.random() < 0.3)
                if again is not None and dice.random() < deeper:
                    explore(again, shape, dice, counts, states=3, seen=seen)
            except Exception as error:
                error.add_note(f"a crash before operation {number}: {state.story}")
                raise


How = Literal["zeros", "garbage"]


def every_byte(disk: RecordingDisk, shape: Shape, counts: Counts, how: How, first: int, stride: int) -> int:
    """The power fails when a frame's write has come to byte n: for every n of all frames, or each `stride`th.

    `how`: what the rest of the frame shows. Zeros, as before, are a torn write; garbage is one of a disk that breaks
    its promise, and may be refused.

    Returns how many bytes of frames there are.
    """
    offset = 0
    for volume, ledger, operation in points(disk):
        if not isinstance(operation, Write) or ledger.maybe is None or _is_segment_being_made(volume, operation):
            continue
        length = len(operation.data)
        begin = (first - offset) % stride
        rest = random.Random(offset) if how == "garbage" else None
        states = volume.prefixes(operation, range(begin, length, stride), rest)
        for state in states:
            try:
                recovered(state, ledger, shape, counts, go_on=counts.states % 16 == 0)
            except Exception as error:
                error.add_note(f"a crash in the write of {ledger.maybe.first_seq}: {state.story}")
                raise
        offset += length
    return offset


def _is_segment_being_made(volume: Volume, write: Write) -> bool:
    path = next((path for path, file in volume.names.items() if file == write.file), ".tmp")
    return path.endswith((".tmp", "LOCK"))


KEPT = 12  # batches that `frames_of` does not trim


def frames_of(log_bytes: int, dice: random.Random) -> tuple[RecordingDisk, Shape]:
    """A log that so many bytes of frames went through; it is trimmed, which makes it four times faster to open."""
    shape = Shape(16 * SECTOR, (0, 10, 400, 408, 900, 1500, 3000), 0, 0, 0)
    disk, ledger = RecordingDisk(), Ledger()
    log = open_log(disk, shape.segment_bytes, LOG_ID)
    disk.note(Opened(log.tail))
    written = 0
    while written < log_bytes:
        batch = LogBatch(1, log.tail.seq + 1, 1, body_of(dice.choice(shape.bodies), dice))
        disk.note(Tried(batch))
        entry = append(log, batch)
        disk.note(Sure(entry))
        ledger.learn(Sure(entry))
        written += frame_bytes(len(batch.body))
        disk.note(Trimmed(batch.first_seq - KEPT))
        log.trim(batch.first_seq - KEPT)
    log.close()
    return disk, shape
