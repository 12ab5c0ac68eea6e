"""Case n for the common runner: one target in turn, a few thousand inputs from seed n."""

from __future__ import annotations

import random
import time

from fuzz.mutate import one
from fuzz.target import check
from fuzz.targets import TARGETS

INPUTS = 4_000
SECONDS_MAX = 10.0
"""Some targets write files; then a case ends before it has had all its inputs."""

MEASURED_EVERY = 16


def case(n: int) -> None:
    """AssertionError with the input, to be put under fuzz/found/."""
    target = list(TARGETS.values())[n % len(TARGETS)]
    dice = random.Random(n)
    end_s = time.monotonic() + SECONDS_MAX
    for number in range(INPUTS):
        data = one(target, dice)
        try:
            check(target, data, measured=number % MEASURED_EVERY == 0)
        except Exception as error:
            raise AssertionError(f"{target.name}, case {n}, input {number}: {error!r}\n{data!r}") from error
        if time.monotonic() > end_s:
            return
