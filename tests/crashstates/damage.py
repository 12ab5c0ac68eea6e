"""What can happen to stored bytes: pure functions that make one mutant of a directory, which is a mapping of files.

One damage at a time, as a disk, a cable or a person does it: bits, sectors, lengths, frames; files that vanish, take
each other's place, or come back as they were.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.crashstates.record import Image

SECTOR = 512


class Mutant(NamedTuple):
    story: str
    image: Image


class Span(NamedTuple):
    """A frame of a log, or anything else that has a place."""

    path: str
    start: int
    end: int


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def changed(image: Image, changes: dict[str, bytes | None], story: str) -> Mutant:
    """With these files as given; None: gone."""
    files: dict[str, bytes | None] = {**image, **changes}
    return Mutant(story, {path: data for path, data in sorted(files.items()) if data is not None})


# -- the bytes of one file; None: this cannot happen to it -------------------------------------------------------

Rot = Callable[[bytes, random.Random], "tuple[bytes, str] | None"]


def _a_bit(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    at, bit = dice.randrange(len(data)), dice.randrange(8)
    return flipped(data, at, bit), f"bit {bit} of byte {at} flipped"


def _a_bit_that_is_used(data: bytes, dice: random.Random) -> tuple[bytes, str] | None:
    """Most of a segment is zeros."""
    used = [at for at in range(0, len(data), 64) if any(data[at : at + 64])]
    if not used:
        return None
    at, bit = min(dice.choice(used) + dice.randrange(64), len(data) - 1), dice.randrange(8)
    return flipped(data, at, bit), f"bit {bit} of byte {at} flipped"


def _a_burst(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    at, length = dice.randrange(len(data)), dice.choice((2, 8, 100))
    piece = dice.randbytes(len(data[at : at + length]))
    return data[:at] + piece + data[at + length :], f"{len(piece)} bytes from {at} on are garbage"


def _sector(data: bytes, dice: random.Random) -> slice:
    at = dice.randrange(0, len(data), SECTOR)
    return slice(at, min(at + SECTOR, len(data)))


def _a_sector_of_zeros(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    place = _sector(data, dice)
    return data[: place.start] + bytes(place.stop - place.start) + data[place.stop :], f"zeros at {place.start}"


def _a_sector_of_garbage(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    place = _sector(data, dice)
    piece = dice.randbytes(place.stop - place.start)
    return data[: place.start] + piece + data[place.stop :], f"a sector of garbage at {place.start}"


def _a_sector_from_elsewhere(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    """A write that went astray."""
    source, place = _sector(data, dice), _sector(data, dice)
    piece = data[source].ljust(SECTOR, b"\0")[: place.stop - place.start]
    return data[: place.start] + piece + data[place.stop :], f"the sector at {source.start} also at {place.start}"


def _two_sectors_swapped(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    one, other = sorted((_sector(data, dice), _sector(data, dice)), key=lambda place: place.start)
    if one == other or one.stop - one.start != other.stop - other.start:
        return _a_sector_of_garbage(data, dice)
    return (
        data[: one.start] + data[other] + data[one.stop : other.start] + data[one] + data[other.stop :],
        f"the sectors at {one.start} and {other.start} swapped",
    )


def _cut(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    length = dice.choice((0, dice.randrange(len(data)), dice.randrange(0, len(data), SECTOR), len(data) - 1))
    return data[:length], f"cut to {length} of {len(data)} bytes"


def _zeros_to_the_end(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    at = dice.choice((dice.randrange(len(data)), dice.randrange(0, len(data), SECTOR)))
    return data[:at].ljust(len(data), b"\0"), f"zeros from {at} on"


def _inserted(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    at, piece = dice.randrange(len(data) + 1), dice.randbytes(dice.choice((1, 7, 512)))
    return data[:at] + piece + data[at:], f"{len(piece)} bytes of garbage put in at {at}"


def _taken_out(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    at, length = dice.randrange(len(data)), dice.choice((1, 7, 512))
    return data[:at] + data[at + length :], f"{length} bytes taken out at {at}"


def _appended(data: bytes, dice: random.Random) -> tuple[bytes, str]:
    piece = dice.choice((bytes(512), dice.randbytes(10), dice.randbytes(512), data[-512:]))
    return data + piece, f"{len(piece)} bytes appended"


ROTS: Sequence[Rot] = (
    _a_bit,
    _a_bit_that_is_used,
    _a_bit_that_is_used,
    _a_burst,
    _a_sector_of_zeros,
    _a_sector_of_garbage,
    _a_sector_from_elsewhere,
    _two_sectors_swapped,
    _cut,
    _zeros_to_the_end,
    _inserted,
    _taken_out,
    _appended,
)


def rotten(image: Image, path: str, dice: random.Random) -> Mutant | None:
    """One file has rotted; None when it has nothing that could."""
    data = image[path]
    rot = dice.choice(ROTS)
    done = rot(data, dice) if data else _appended(data, dice)
    if done is None or done[0] == data:
        return None
    return changed(image, {path: done[0]}, f"{path}: {done[1]}")


# -- whole files ---------------------------------------------------------------------------------------------------


def misplaced(image: Image, paths: Sequence[str], older: Sequence[Image], dice: random.Random) -> Mutant | None:
    """One of these files is gone, or is another's, or is what it was."""
    path, other = dice.choice(paths), dice.choice(paths)
    match dice.randrange(4):
        case 0:
            return changed(image, {path: None}, f"{path}: deleted")
        case 1 if path != other and image[path] != image[other]:
            return changed(image, {path: image[other]}, f"{path}: a copy of {other}")
        case 2 if path != other and image[path] != image[other]:
            return changed(image, {path: image[other], other: image[path]}, f"{path}, {other}: swapped")
        case 3 if older:
            was = dice.choice(older)
            if path in was and was[path] != image[path]:
                return changed(image, {path: was[path]}, f"{path}: as it was some time ago")
    return None


# -- frames ----------------------------------------------------------------------------------------------------------


def reframed(image: Image, frames: Sequence[Span], dice: random.Random) -> Mutant | None:
    """A frame of a log takes another's place, or those after it move up, or it is there twice."""
    one, other = dice.choice(frames), dice.choice(frames)
    data = image[one.path]
    frame = data[one.start : one.end]
    match dice.randrange(4):
        case 0:
            moved = (data[: one.start] + data[one.end :]).ljust(len(data), b"\0")
            return changed(image, {one.path: moved}, f"{one.path}: the frame at {one.start} is gone, the rest moved up")
        case 1:
            twice = (data[: one.end] + frame + data[one.end :])[: len(data)]
            return changed(image, {one.path: twice}, f"{one.path}: the frame at {one.start} is there twice")
        case 2 if one != other:
            target = image[other.path]
            put = (target[: other.start] + frame + target[other.end :])[: len(target)].ljust(len(target), b"\0")
            story = f"{other.path}: the frame at {other.start} is the one at {one.start} of {one.path}"
            return changed(image, {other.path: put}, story)
        case 3 if one.path == other.path and one.start < other.start:
            swapped = (
                data[: one.start]
                + data[other.start : other.end]
                + data[one.end : other.start]
                + frame
                + data[other.end :]
            )
            return changed(image, {one.path: swapped}, f"{one.path}: frames at {one.start}, {other.start} swapped")
    return None
