"""Every legal state of a disk after a crash: a pure function of what was done, and of dice where there are too many.

What may be lost is what nobody has synced:

* a sector (512 bytes) of a file shows what it held at the last sync, or what any write since has put there, each
  sector for itself; it is never half of both;
* a file that has grown has its old length, or any length up to the new one, and where its length came to the disk
  before its data it shows zeros, or garbage: what the disk held there before;
* a change of names is there or not, each for itself, in any order: only changes of the same name or the same file come
  in theirs. A rename is one change. What lies in a directory that is not there is not there either.

After a crash that kept these rules nothing durable may be lost or refused. `Kept.ALL_BUT_SECTORS` are states of a disk
that broke the first one: a sector under way is garbage. They may be refused, and must not be taken for good.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import product
from math import prod
from typing import NamedTuple, assert_never

from tests.crashstates.record import (
    Create,
    Image,
    MakeDirectory,
    NameChange,
    Operation,
    Rename,
    Sync,
    SyncNames,
    Truncate,
    Unlink,
    Write,
)

SECTOR = 512
DIRECTORY = -1  # in place of a file's number


class Kept(Enum):
    """Which promises the disk has kept."""

    ALL = "all"
    ALL_BUT_SECTORS = "all but that a sector is written whole or not at all"


class State(NamedTuple):
    image: Image
    directories: tuple[str, ...]
    kept: Kept
    story: str  # how it came about


class Volume:
    """What is on the disk for sure, and what is under way. Fed with operations."""

    def __init__(self, start: Image, directories: Sequence[str] = ()) -> None:
        self.names: dict[str, int] = dict.fromkeys(directories, DIRECTORY)
        self.names |= {path: number for number, path in enumerate(start)}
        self.data: dict[int, bytes] = dict(enumerate(start.values()))
        self.changes: list[NameChange] = []  # of names, not synced
        self.writes: dict[int, list[Write | Truncate]] = {}  # not synced

    def apply(self, operation: Operation) -> None:
        match operation:
            case Write(file) | Truncate(file):
                self.writes.setdefault(file, []).append(operation)
            case Sync(file):
                if (writes := self.writes.pop(file, None)) is not None:
                    self.data[file] = contents(self.data[file], writes)
            case Create(_, file):
                self.data[file] = b""
                self.changes.append(operation)
            case MakeDirectory() | Rename() | Unlink():
                self.changes.append(operation)
            case SyncNames(directory):
                mine = [change for change in self.changes if _parent(_paths(change)[0]) == directory]
                self.names = renamed(self.names, mine)
                self.changes = [change for change in self.changes if change not in mine]
            case _:
                assert_never(operation)

    def now(self) -> State:
        """What the living process sees: also what it leaves when it is killed and the machine goes on."""
        names = renamed(self.names, self.changes)
        return self._state(names, {file: contents(self.data[file], w) for file, w in self.writes.items()}, "killed")

    def crashes(self, dice: random.Random, limit: int) -> Iterator[State]:
        """All states that a power failure may leave here, if these are about `limit` at most; else some of them."""
        changes = self.changes
        histories = list(_histories(changes, dice, limit))
        if not self.writes:
            for chosen in histories:
                yield self._state(renamed(self.names, _picked(changes, chosen)), {}, _told(changes, chosen))
            return
        left = max(1, limit // len(histories))
        for chosen in histories:
            names = renamed(self.names, _picked(changes, chosen))
            named = {file: path for path, file in names.items()}
            files = {file: writes for file, writes in self.writes.items() if file in named}
            story = _told(changes, chosen)
            for data, how in _losses(self.data, files, dice, left):
                yield self._state(names, data, f"{story}; {how}")
            if overwritten := [file for file, path in named.items() if file in files and not path.endswith(".tmp")]:
                yield self._state(
                    names, *_spoilt(self.data, files, dice.choice(overwritten), dice), kept=Kept.ALL_BUT_SECTORS
                )

    def prefixes(self, write: Write, at: Iterable[int], rest: random.Random | None) -> Iterator[State]:
        """That write, coming next, was done up to byte n of it, for every n; the rest is old, or garbage of `rest`."""
        names = renamed(self.names, self.changes)
        before = contents(self.data[write.file], self.writes.get(write.file, []))
        others = {file: contents(self.data[file], w) for file, w in self.writes.items() if file != write.file}
        for count in at:
            start, middle, end = write.offset, write.offset + count, write.offset + len(write.data)
            left = before[middle:end].ljust(end - middle, b"\0") if rest is None else rest.randbytes(end - middle)
            data = before[:start].ljust(start, b"\0") + write.data[:count] + left + before[end:]
            how = f"{count} of {len(write.data)} bytes at {start} were written, then {'garbage' if rest else 'nothing'}"
            kept = Kept.ALL if rest is None else Kept.ALL_BUT_SECTORS
            yield self._state(names, others | {write.file: data}, how, kept)

    def _state(self, names: dict[str, int], data: dict[int, bytes], story: str, kept: Kept = Kept.ALL) -> State:
        directories = tuple(path for path, file in names.items() if file == DIRECTORY)
        image = {
            path: data.get(file, self.data.get(file, b""))
            for path, file in sorted(names.items())
            if file != DIRECTORY and (_parent(path) in directories or _parent(path) == "/")
        }
        return State(image, directories, kept, story)


def contents(before: bytes, writes: Sequence[Write | Truncate]) -> bytes:
    """Of a file, with all these writes done."""
    data = bytearray(before)
    for each in writes:
        if isinstance(each, Truncate):
            data.clear()
            continue
        end = each.offset + len(each.data)
        if len(data) < end:
            data.extend(bytes(end - len(data)))
        data[each.offset : end] = each.data
    return bytes(data)


def renamed(names: dict[str, int], changes: Iterable[NameChange]) -> dict[str, int]:
    """Names, with all these changes done."""
    after = dict(names)
    for change in changes:
        match change:
            case MakeDirectory(path):
                after[path] = DIRECTORY
            case Create(path, file):
                after[path] = file
            case Rename(old, new, file):
                del after[old]
                after[new] = file
            case Unlink(path):
                del after[path]
            case _:
                assert_never(change)
    return after


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _paths(change: NameChange) -> tuple[str, ...]:
    return (change.old, change.new) if isinstance(change, Rename) else (change.path,)


def _touched(change: NameChange) -> set[str | int]:
    touched: set[str | int] = set(_paths(change))
    if not isinstance(change, MakeDirectory):
        touched.add(change.file)
    return touched


def _histories(changes: Sequence[NameChange], dice: random.Random, limit: int) -> Iterator[tuple[bool, ...]]:
    """Which changes of names may have come to the disk: with each also the earlier ones of its name or its file."""
    touched = [_touched(change) for change in changes]
    needs = [
        [earlier for earlier in range(number) if touched[earlier] & touched[number]] for number in range(len(changes))
    ]

    def legal(chosen: Sequence[bool]) -> bool:
        return all(not each or all(chosen[i] for i in needs[number]) for number, each in enumerate(chosen))

    if 2 ** len(changes) <= 4 * limit:
        yield from filter(legal, product((True, False), repeat=len(changes)))
        return
    seen = set()
    for _ in range(limit):
        chosen = [dice.random() < 0.5 for _ in changes]
        for number, each in enumerate(chosen):
            chosen[number] = each and all(chosen[i] for i in needs[number])
        seen.add(tuple(chosen))
    yield from sorted(seen | {(True,) * len(changes), (False,) * len(changes)})


def _picked(changes: Sequence[NameChange], chosen: Sequence[bool]) -> list[NameChange]:
    return [change for change, each in zip(changes, chosen, strict=True) if each]


def _told(changes: Sequence[NameChange], chosen: Sequence[bool]) -> str:
    lost = [change for change, each in zip(changes, chosen, strict=True) if not each]
    return f"lost: {', '.join(map(repr, lost))}" if lost else "no name lost"


class _Sector(NamedTuple):
    file: int
    number: int
    versions: list[bytes]  # the first is the synced one, empty where the file had not grown to it


def _sectors(data: dict[int, bytes], files: dict[int, list[Write | Truncate]]) -> list[_Sector]:
    """All sectors of these files that are not what they were at the last sync."""
    found: dict[tuple[int, int], list[bytes]] = {}
    for file, writes in files.items():
        content = data[file]
        for count, each in enumerate(writes, 1):
            if isinstance(each, Truncate):
                continue
            content = contents(data[file], writes[:count])
            for number in range(each.offset // SECTOR, -(-(each.offset + len(each.data)) // SECTOR)):
                place = slice(number * SECTOR, (number + 1) * SECTOR)
                versions = found.setdefault((file, number), [data[file][place]])
                if content[place] != versions[-1]:
                    versions.append(content[place])
    return [_Sector(file, number, versions) for (file, number), versions in found.items() if len(versions) > 1]


def _losses(
    data: dict[int, bytes], files: dict[int, list[Write | Truncate]], dice: random.Random, limit: int
) -> Iterator[tuple[dict[int, bytes], str]]:
    """Contents of the files that are being written: all combinations of their sectors, or some."""
    sectors = _sectors(data, files)
    counts = [len(sector.versions) for sector in sectors]
    picks: Iterable[tuple[int, ...]]
    if prod(counts) <= limit:
        picks = product(*map(range, counts))
    else:
        none, full = (0,) * len(counts), tuple(count - 1 for count in counts)
        one = dice.randrange(len(counts))
        chosen = {
            none,
            full,
            (*full[:one], 0, *full[one + 1 :]),
            (*none[:one], full[one], *none[one + 1 :]),
            (*full[:one], *none[one:]),
            (*none[:one], *full[one:]),
        }
        while len(chosen) < limit:
            likely = dice.random()
            chosen.add(tuple(dice.randrange(1, count) if dice.random() < likely else 0 for count in counts))
        picks = sorted(chosen)
    grown = {file: contents(data[file], writes) for file, writes in files.items()}
    for pick in picks:
        fill = dice.choice(("shorter", "zeros", "garbage"))
        after = {}
        for file in files:
            # A truncation that is under way counts as done: its file is one that was never durable.
            was = b"" if any(isinstance(each, Truncate) for each in files[file]) else data[file]
            kept = bytearray(was)
            if fill != "shorter" and len(grown[file]) > len(was):
                missing = len(grown[file]) - len(was)
                kept.extend(bytes(missing) if fill == "zeros" else dice.randbytes(missing))
            after[file] = kept
        for sector, version in zip(sectors, pick, strict=True):
            piece, kept = sector.versions[version], after[sector.file]
            start = sector.number * SECTOR
            if version and piece:
                kept.extend(bytes(max(0, start + len(piece) - len(kept))))
                kept[start : start + len(piece)] = piece
        lost = [f"{sector.number}" for sector, version in zip(sectors, pick, strict=True) if not version]
        yield (
            {file: bytes(kept) for file, kept in after.items()},
            f"{len(lost)} of {len(sectors)} sectors lost ({' '.join(lost[:20])}), where files grew: {fill}",
        )


def _spoilt(
    data: dict[int, bytes], files: dict[int, list[Write | Truncate]], file: int, dice: random.Random
) -> tuple[dict[int, bytes], str]:
    """All writes done, but for one sector of this file, which is garbage."""
    after = {each: contents(data[each], writes) for each, writes in files.items()}
    sectors = _sectors(data, {file: files[file]})
    if not sectors:
        return after, "nothing lost"
    start = dice.choice(sectors).number * SECTOR
    content = after[file]
    length = min(SECTOR, len(content) - start)
    after[file] = content[:start] + dice.randbytes(length) + content[start + length :]
    return after, f"the sector at {start} is garbage"
