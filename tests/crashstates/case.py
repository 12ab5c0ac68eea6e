"""The suites of crash states and damage, each a function of a number: case n does everything from n alone."""

from __future__ import annotations

import random

from tests.crashstates.powerloss import Counts, How, Ledger, Shape, every_byte, explore, frames_of, live
from tests.crashstates.record import RecordingDisk

SLICES = 256
"""Every byte offset of a log of 256 KiB is cut, in both ways, by so many cases in a row."""

SWEPT_BYTES = 256 << 10


def crash_case(n: int) -> None:
    """A random life of the log, crashed at every point in many ways; and one slice of the cuts at every byte."""
    dice = random.Random(n)
    shape = Shape.any(dice)
    disk, counts = RecordingDisk(), Counts()
    live(disk, Ledger(), shape, dice, batches=25)
    explore(disk, shape, dice, counts, states=24, deeper=0.03)
    assert counts.states > 100
    how: How = "zeros" if n % 2 == 0 else "cut"
    sweep(n // SLICES, how, n % SLICES // 2, SLICES // 2)


def sweep(seed: int, how: How, first: int, stride: int) -> Counts:
    """A log of 256 KiB, cut at every `stride`th byte from `first` on."""
    disk, shape = frames_of(SWEPT_BYTES, random.Random(seed))
    counts = Counts()
    size = every_byte(disk, shape, counts, how, first, stride)
    assert size >= SWEPT_BYTES
    assert counts.states == len(range(first, size, stride))
    return counts
