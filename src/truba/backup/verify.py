"""Is it still what was written? Every byte of a backup, and then the state that it leads to. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from truba.backup.files import hash_file, is_regular, looked_at, open_regular
from truba.backup.manifest import NAME, UNFINISHED, Count, Manifest, read_manifest
from truba.backup.state import replay
from truba.errors import DataDamaged, DataError, DataForeign, DataUnwritable
from truba.machine.digest import state_digest

Stage = Literal["checksums", "reading", "copying"]
Tell = Callable[[Stage, int, int], object]
"""Which part is under way, and how far: bytes, or for "reading" sessions. "copying" is what a restore does next."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`problems`: what is not as it was written; sound when there are none. `paused`: kinds, where the state could be
    put together."""

    manifest: Manifest
    problems: tuple[str, ...]
    paused: frozenset[int]

    @property
    def sound(self) -> bool:
        return not self.problems


def manifest_of(directory: Path) -> Manifest:
    """What it says of itself. FileNotFoundError; DataForeign: this is none, or none yet; DataDamaged, DataNewer."""
    if not directory.is_dir():
        raise FileNotFoundError(2, "No such directory", str(directory))
    if not (directory / NAME).exists():
        if (directory / UNFINISHED).exists():
            raise DataForeign(f"{directory} is an unfinished backup: remove it, and take another one")
        raise DataForeign(f"{directory} is no backup: it has no file {NAME}")
    if not is_regular(directory / NAME):
        raise DataForeign(f"{directory} is no backup: {NAME} in it is no regular file")
    try:
        with open_regular(directory / NAME) as file:
            return read_manifest(file.read(), directory / NAME)
    except OSError as error:
        raise DataUnwritable(f"{directory / NAME} cannot be read: {error}") from error


def verify(directory: Path, tell: Tell = lambda stage, done, of: None) -> Verdict:
    """Raises what `manifest_of` does, and DataUnwritable when the backup cannot be looked at; all else that is wrong is
    in the verdict."""
    manifest = manifest_of(directory)
    paused = frozenset[int]()
    problems = list(_files(directory, manifest, tell))
    if not problems:
        problems, paused = _state(directory, manifest, tell)
    return Verdict(manifest, tuple(problems), paused)


def sound(directory: Path, tell: Tell = lambda stage, done, of: None) -> Manifest:
    """As `verify`; DataDamaged unless all is well."""
    verdict = verify(directory, tell)
    if not verdict.sound:
        raise DataDamaged(
            f"the backup {directory} is not what was written: {'; '.join(verdict.problems[:3])}. Take an older one"
        )
    return verdict.manifest


def _files(directory: Path, manifest: Manifest, tell: Tell) -> Iterator[str]:
    there = set(_within(directory))
    for name in sorted(there - {NAME} - {file.name for file in manifest.files}):
        yield f"{name}: the backup did not have it"
    done_bytes, all_bytes = 0, manifest.bytes

    def advance(size_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += size_bytes
        tell("checksums", done_bytes, all_bytes)

    for file in manifest.files:
        if file.name not in there:
            yield f"{file.name}: it is missing"
            continue
        if not is_regular(directory / file.name):
            yield f"{file.name}: it is no regular file, and a backup has nothing else: copy what it stands for"
            continue
        try:
            found = hash_file(directory / file.name, advance)
        except OSError as error:
            yield f"{file.name}: it cannot be read: {error}"
            continue
        if found.bytes != file.bytes:
            yield f"{file.name}: {found.bytes} bytes long, and was {file.bytes}"
        elif found.sha256 != file.sha256:
            yield f"{file.name}: its bytes are not what was written"


def _within(directory: Path) -> Iterator[str]:
    """All that lies in it, by its path inside, but for directories. A link to one is none."""
    for above, directories, files in os.walk(directory):
        inside = [Path(above, name) for name in files]
        inside += [path for name in directories if (path := Path(above, name)).is_symlink()]
        yield from (path.relative_to(directory).as_posix() for path in inside)


def _state(directory: Path, manifest: Manifest, tell: Tell) -> tuple[list[str], frozenset[int]]:
    """What is wrong with it, and which kinds are paused in it. Whole files can still not belong together, if whoever
    wrote them was wrong."""
    sessions = manifest.sessions
    problems: list[str] = []
    try:
        with looked_at(directory / "store") as store:
            machine = replay(store, directory / "log", manifest.store.position, manifest.at.position)
            counts = [Count(kind, phase, count) for (kind, phase), count in sorted(machine.counts.items())]
            if counts != manifest.counts:
                problems.append(f"the state holds other sessions than were counted: {counts}")
            tell("reading", 0, sessions)
            if state_digest(machine, lambda done: tell("reading", done, sessions)) != manifest.digest:
                problems.append("the state is not the one that was backed up")
            tell("reading", sessions, sessions)
            return problems, machine.paused
    except DataUnwritable:
        raise  # want of room, say: of the backup it says nothing
    except DataError as error:
        return [*problems, str(error)], frozenset()
