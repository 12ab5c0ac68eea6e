"""The suites of crash states and damage, each a function of a number: case n does everything from n alone."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

from tests.crashstates import together
from tests.crashstates.kill import Stage
from tests.crashstates.place import a_place
from tests.crashstates.powerloss import Counts, How, Ledger, Shape, every_byte, explore, frames_of, live
from tests.crashstates.record import RecordingDisk
from tests.crashstates.rot import Grown, RottenDirectory, RottenLog
from tests.crashstates.sessions import history

SLICES = 1024
"""Every byte offset of a log of 256 KiB is reached, with both fills, by so many cases in a row."""

SWEPT_BYTES = 256 << 10


def crash_case(n: int) -> None:
    """A random life of the log, crashed at every point in many ways; and at one slice of the bytes of a large log."""
    dice = random.Random(n)
    shape = Shape.any(dice)
    disk, counts = RecordingDisk(), Counts()
    live(disk, Ledger(), shape, dice, batches=25)
    explore(disk, shape, dice, counts, states=24, deeper=0.03)
    assert counts.states > 100
    how: How = "zeros" if n % 2 == 0 else "garbage"
    sweep(n // SLICES, how, n % SLICES // 2, SLICES // 2)


def sweep(seed: int, how: How, first: int, stride: int) -> Counts:
    """Power fails at every `stride`th byte of a log of 256 KiB, from `first` on."""
    disk, shape = frames_of(SWEPT_BYTES, random.Random(seed))
    counts = Counts()
    size = every_byte(disk, shape, counts, how, first, stride)
    assert size >= SWEPT_BYTES
    assert counts.states == len(range(first, size, stride))
    return counts


KILL_SLICES = 64
"""Every step of a life is killed by so many cases in a row."""


def store_case(n: int) -> None:
    """A node with checkpoints and an installation: processes killed at steps, and power lost to the log alone."""
    dice = random.Random(n)
    with a_place() as place:
        stage = Stage(place, n // KILL_SLICES)
        with stage.victims:
            for step in range(1 + n % KILL_SLICES, len(stage.steps()) + 1, KILL_SLICES):
                stage.kill(step, dice)
    with a_place() as place:
        met = together.explore(place, history(n, batches=24), dice, states=6)
    assert met.replayed > 50
    assert met.refused > 50


BIT_SLICES = 512
"""Every bit of a log is flipped by so many cases in a row; its small files, by eight."""

STEPS = (None, 0, 1, 2, 3, 4, 5)
"""Of an installation; in the long run each number of them meets each slice."""


def rot_case(n: int) -> None:
    """A log in which one thing after the other is damaged, and a whole directory."""
    rot_log(n, mutants=150)
    dice = random.Random(n)
    with a_place() as place:
        logged = dice.randint(20, 40)
        stored = dice.choice((0, logged // 2, logged))
        grown = Grown(logged, stored, dice.choice((0, stored)))
        directory = RottenDirectory(place, history(n, batches=50), grown, STEPS[n % len(STEPS)])
        for mutant in (*directory.files(), *islice(directory.bits(), n % 8, None, 8), *directory.mutants(dice, 20)):
            directory.start(mutant)
    assert directory.counts["true"]
    assert directory.counts["refused"]


def rot_log(n: int, mutants: int) -> Counter[str]:
    dice = random.Random(n)
    logged = dice.randint(20, 40)
    stored = dice.choice((0, logged // 2, logged))
    with a_place() as place:
        log = RottenLog(place, history(n // BIT_SLICES, batches=50), Grown(logged, stored, dice.choice((0, stored))))
        try:
            for mutant in (
                *log.bits(n % BIT_SLICES, BIT_SLICES),
                *log.sectors(),
                *log.cuts(),
                *log.mutants(dice, mutants),
            ):
                log.start(mutant)
        finally:
            log.close()
    assert log.counts["true"]
    assert log.counts["refused"]
    return log.counts
