"""Damage, and what a start makes of it.

A start has three ways: the true state, since nothing that lives was hit; a refusal; or a shorter log, and that only
where no reader can tell the damage from a crash (`explained` says exactly when). Anything else is a mutant that was
silently accepted.

Mutants of the log are made in memory, thousands of them beside one open store. Mutants of the store, and of directories
in the middle of an installation, are real files, and are started by the composition root.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.crashstates.damage import Mutant, Span, changed, flipped, misplaced, reframed, rotten
from tests.crashstates.kill import make_peer
from tests.crashstates.powerloss import HOME, open_log
from tests.crashstates.record import Image
from tests.crashstates.sessions import KINDS, LOG_ID, History
from truba import install
from truba.codec.batch import decode_batch
from truba.compose import build
from truba.errors import DataError
from truba.install import Arrival
from truba.log.disk import Disk, OsDisk
from truba.log.file import FileLog
from truba.log.frame import SECTOR, is_zero
from truba.log.inspect import frames
from truba.machine.digest import state_digest
from truba.node.recovery import recover
from truba.ports.store import Summary, staged_all
from truba.store.rocks import RocksStore
from truba.testing.disk import SimulatedDisk

SEGMENT_BYTES = 16 * SECTOR


class Grown(NamedTuple):
    """How far a node has come: batches in its log, in its store, and dropped from its log."""

    logged: int
    stored: int
    trimmed: int


def grow(log: FileLog, store: RocksStore, known: History, grown: Grown, through: int) -> None:
    """Bring a node so many batches far, from wherever it is."""
    machine = recover(log, store, KINDS)
    for number, (batch, position) in enumerate(known.entries[:through], 1):
        if position.seq <= log.tail.seq:
            continue
        log.append(batch, lambda error: None)
        assert log.tail == position
        machine.replay(batch.term, decode_batch(batch.body))
        # Two commits: the store has tables, and a mark, of two times.
        if number in (grown.stored // 2, grown.stored):
            frozen = machine.freeze()
            store.commit(staged_all(store, frozen.changes()), Summary(position, dict(machine.counts)))
            machine.settle(frozen)
        if number == max(grown.stored, grown.trimmed) and grown.trimmed:
            log.trim(known.entries[grown.trimmed - 1][1].seq)


def stops(grown: Grown) -> list[int]:
    """Where a node is looked at on its way."""
    return [*range(8, grown.logged, 8), grown.logged]


class Frame(NamedTuple):
    span: Span
    seq: int  # of its last event


def frames_of(home: Path, disk: Disk, called: str) -> list[Frame]:
    """Where each frame lies, as the log itself tells; `called`: its directory, in the paths."""
    return [
        Frame(
            Span(f"{called}/segment-{line.segment:010d}.log", line.offset, line.offset + line.size), line.position.seq
        )
        for line in frames(home, disk)
    ]


def explained(damaged: Image, true: Image, frames: Sequence[Frame], seq: int) -> bool:
    """Whether what is left, which ends with `seq`, is what a crash could have left of a log that was never longer.

    Then there are zeros where the lost frames were, as if nothing had ever been written there; or the first of them
    looks as if it had been written in part: at least one sector of it is zeros and had not been, or it is zeros from
    some byte on. No file is shorter than it was, or gone.
    """
    for number, (path, start, end) in enumerate(span for span, last_seq in frames if last_seq > seq):
        was, data = true[path], damaged.get(path, b"")
        if len(data) != len(was):
            return False
        if not is_zero(data[start:end]) and (number > 0 or not _in_part(data[start:end], was[start:end])):
            return False
    return True


def _in_part(data: bytes, was: bytes) -> bool:
    written = data.rstrip(b"\0")
    return (len(written) < len(was.rstrip(b"\0")) and was.startswith(written)) or any(
        is_zero(data[at : at + SECTOR]) and not is_zero(was[at : at + SECTOR]) for at in range(0, len(data), SECTOR)
    )


class RottenLog:
    """A log in memory, beside a store on real files."""

    def __init__(self, place: Path, known: History, grown: Grown) -> None:
        self.known = known
        self.tail_seq = known.entries[grown.logged - 1][1].seq
        self.older: list[Image] = []
        self.counts: Counter[str] = Counter()
        disk = SimulatedDisk()
        self.store = RocksStore.open(place / "store")
        try:
            log = open_log(disk, SEGMENT_BYTES, LOG_ID)
            for through in stops(grown):
                grow(log, self.store, known, grown, through)
                self.older.append(image_of(disk))
            log.close()
        except BaseException:
            self.store.close()
            raise
        self.image = image_of(disk)
        self.frames = frames_of(HOME, disk, str(HOME))

    def close(self) -> None:
        self.store.close()

    def mutants(self, dice: random.Random, count: int) -> Iterator[Mutant]:
        segments = [path for path in self.image if path.endswith(".log")]
        spans = [span for span, _ in self.frames]
        while count:
            match dice.randrange(4):
                case 0:
                    mutant = misplaced(self.image, list(self.image), self.older, dice)
                case 1:
                    mutant = reframed(self.image, spans, dice)
                case _:
                    mutant = rotten(self.image, dice.choice(segments), dice)
            if mutant is not None:
                count -= 1
                yield mutant

    def bits(self, first: int, stride: int) -> Iterator[Mutant]:
        """Every bit of every segment that holds anything, or each `stride`th."""
        number = 0
        for path, data in self.image.items():
            if path.endswith(".log"):
                for at in range((first - number) % stride, 8 * len(data), stride):
                    story = f"{path}: bit {at % 8} of byte {at // 8} flipped"
                    yield changed(self.image, {path: flipped(data, at // 8, at % 8)}, story)
                number += 8 * len(data)

    def sectors(self) -> Iterator[Mutant]:
        """Every sector that holds anything, as if it had never been written, as another one, and as garbage."""
        for path, data in self.image.items():
            for at in range(0, len(data) if path.endswith(".log") else 0, SECTOR):
                if not is_zero(data[at : at + SECTOR]):
                    zeros = data[:at] + bytes(SECTOR) + data[at + SECTOR :]
                    yield changed(self.image, {path: zeros}, f"{path}: zeros at {at}")
                    other = data[:at] + data[:at][-SECTOR:].ljust(SECTOR, b"\xff") + data[at + SECTOR :]
                    yield changed(self.image, {path: other}, f"{path}: the sector before it, also at {at}")
                    # Its last byte is zero, as that of a sector in which no frame ends.
                    other = data[:at] + (b"\xaa" * (SECTOR - 1) + b"\0") + data[at + SECTOR :]
                    yield changed(self.image, {path: other}, f"{path}: garbage at {at}")

    def cuts(self) -> Iterator[Mutant]:
        """Every segment cut at the end of every sector, and just before it."""
        for path, data in self.image.items():
            if path.endswith(".log"):
                for length in range(SECTOR, len(data) + 1, SECTOR):
                    yield changed(self.image, {path: data[: length - 1]}, f"{path}: cut to {length - 1} bytes")
                    yield changed(self.image, {path: data[:length]}, f"{path}: cut to {length} bytes")

    def start(self, mutant: Mutant) -> str:
        try:
            how = self._start(mutant.image)
        except Exception as error:
            error.add_note(mutant.story)
            raise
        self.counts[how] += 1
        return how

    def _start(self, image: Image) -> str:
        disk = SimulatedDisk()
        disk.hold(image, (str(HOME),))
        try:
            log = open_log(disk, SEGMENT_BYTES, LOG_ID)
            try:
                machine = recover(log, self.store, KINDS)
                entries = list(log.read(self.store.summary.applied.seq))
            finally:
                log.close()
        except DataError:
            return "refused"
        seq, applied = machine.seq, self.store.summary.applied.seq
        assert state_digest(machine) == self.known.digests.get(seq), f"a state that never was, through {seq}"
        true = [entry for entry in self.known.entries if applied < entry[1].seq <= seq]
        assert entries == true, "entries that nobody has written"
        if seq == self.tail_seq:
            return "true"
        assert explained(image, self.image, self.frames, seq), f"through {self.tail_seq}, but accepted through {seq}"
        return "shorter"


def image_of(disk: SimulatedDisk) -> Image:
    return {path: bytes(file.now) for path, file in sorted(disk.files.items())}


class RottenDirectory:
    """A data directory on real files. `true`: the states that a start may find, by their last event."""

    def __init__(self, place: Path, known: History, grown: Grown, steps: int | None) -> None:
        """`steps`: a checkpoint of a peer is being installed, and has come so far; None: it is not."""
        self._place = place
        self._known = known
        self._lives = 0
        self.counts: Counter[str] = Counter()
        self.older: list[Image] = []
        data = place / "data"
        for through in stops(grown):
            # Looked at when it is closed: an open store changes by itself, file after file.
            with closing(open_real_log(data)) as log, closing(RocksStore.open(data / "store")) as store:
                grow(log, store, known, grown, through)
                self._applied = store.summary.applied
            self.older.append(files_of(data))
        self.true = {known.entries[grown.logged - 1][1].seq}
        self.steps = steps
        if self.steps is not None:
            self._install(data, self.steps)
        self.image = files_of(data)
        self.frames = [] if self.steps is not None else frames_of(data / "log", OsDisk(), "log")
        shutil.rmtree(data)

    def _install(self, data: Path, steps: int) -> None:
        """A checkpoint of a peer arrives, and the process dies after so many of the steps that follow the decision."""
        through = len(self._known.entries) - 5
        position = make_peer(self._place / "export", self._known, through)
        self.true.add(position.seq)

        class Died(Exception):
            pass

        act, left = install._act, steps  # noqa: SLF001

        def acted(where: Path, step: install.Move | install.Remove) -> None:
            nonlocal left
            if left == 0:
                raise Died
            left -= 1
            act(where, step)

        arrival = Arrival(data)
        try:
            shutil.copytree(self._place / "export", arrival.store)
            install._act = acted  # noqa: SLF001
            try:
                arrival.install(LOG_ID, position, segment_bytes=SEGMENT_BYTES)
            except Died:
                pass
            finally:
                install._act = act  # noqa: SLF001
        finally:
            arrival.close()

    def mutants(self, dice: random.Random, count: int) -> Iterator[Mutant]:
        others = [path for path in self.image if "log/segment" not in path]
        while count:
            if dice.random() < 0.25:
                mutant = misplaced(self.image, others, self.older, dice)
            else:
                mutant = rotten(self.image, dice.choice(others), dice)
            if mutant is not None and mutant.image != self.image:
                count -= 1
                yield mutant

    def files(self) -> Iterator[Mutant]:
        """Every file and every directory gone, or as it was at each time before."""
        for path, data in self.image.items():
            if "log/segment" not in path:
                yield changed(self.image, {path: None}, f"{path}: deleted")
                for before in {was[path] for was in self.older if path in was} - {data}:
                    yield changed(self.image, {path: before}, f"{path}: as it was some time ago")
            if "MANIFEST" in path:
                for end in record_ends(data):
                    yield changed(self.image, {path: data[:end]}, f"{path}: cut after the record that ends at {end}")
        for top in {path.partition("/")[0] for path in self.image}:
            rest = {path: data for path, data in self.image.items() if path not in _below(top, self.image)}
            yield Mutant(f"{top}: the whole directory is gone", rest)
            for was in self.older:
                yield Mutant(f"{top}: the whole directory as it was some time ago", rest | _below(top, was))

    def bits(self) -> Iterator[Mutant]:
        """Every bit of the small files that hold a decision or a position."""
        for path, data in self.image.items():
            if path.endswith(("READY", "CURRENT", "APPLIED")):
                for bit in range(8 * len(data)):
                    story = f"{path}: bit {bit % 8} of byte {bit // 8} flipped"
                    yield changed(self.image, {path: flipped(data, bit // 8, bit % 8)}, story)

    def start(self, mutant: Mutant) -> str:
        self._lives += 1
        data = self._place / f"mutant-{self._lives}"
        put(mutant.image, data)
        try:
            how = asyncio.run(self._start(data, mutant.image))
        except Exception as error:
            error.add_note(f"installing: {self.steps} steps done; {mutant.story}")
            raise
        finally:
            shutil.rmtree(data)
        self.counts[how] += 1
        return how

    async def _start(self, data: Path, image: Image) -> str:
        try:
            parts = build(data, list(KINDS.values()), segment_bytes=SEGMENT_BYTES, reserve_bytes=0)
            try:
                digest, seq = state_digest(parts.node.machine), parts.node.machine.seq
            finally:
                parts.release()
        except DataError:
            if self.steps is None:
                self._check_tables(data, image)
            return "refused"
        assert digest == self._known.digests.get(seq), f"a state that never was, through {seq}"
        if seq in self.true:
            tops = {path.partition("/")[0] for path in files_of(data)}
            assert "incoming/READY" not in image or tops == {"log", "store"}, "something was left behind"
            return "true"
        assert seq > 0, "it has begun anew, as if there had never been anything"
        # A log that is wholly what it once was is as good as it was then; only the store could know better.
        if _below("log", image) not in [_below("log", was) for was in self.older]:
            assert self.frames, f"{self.true}, but accepted {seq}"
            assert explained(image, self.image, self.frames, seq), f"{self.true}, but accepted {seq}"
        return "shorter"

    def _check_tables(self, data: Path, image: Image) -> None:
        """After a refusal. (Not in an installation: a step of it may come before the refusal, and removes files.)"""
        tables = {(path, content) for path, content in image.items() if path.endswith(".sst")} & self.image.items()
        if not tables <= files_of(data).items():
            # The store itself was fine, and has put its tables together; then it is as it was.
            with closing(RocksStore.open(data / "store")) as store:
                assert store.summary.applied == self._applied, "a refused start deleted tables"


def record_ends(manifest: bytes) -> Iterator[int]:
    """Where RocksDB's records end, each of which is: checksum (4 bytes), length (2), kind (1), and the record."""
    at = 0
    while (length := int.from_bytes(manifest[at + 4 : at + 6], "little")) and at + 7 + length < len(manifest):
        at += 7 + length
        yield at


def open_real_log(data: Path) -> FileLog:
    return FileLog.open(
        data / "log", segment_bytes=SEGMENT_BYTES, reserve_bytes=0, housekeeping="inline", log_id=LOG_ID
    )


def files_of(data: Path) -> Image:
    return {str(path.relative_to(data)): path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()}


def _below(top: str, image: Image) -> Image:
    return {path: data for path, data in image.items() if path.partition("/")[0] == top}


def put(image: Image, data: Path) -> None:
    for path, content in image.items():
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_bytes(content)
