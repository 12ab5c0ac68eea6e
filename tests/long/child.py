"""Runs cases of one suite until its time is over: `python -m tests.long.child NAME FIRST SECONDS [COUNT]`.

Writes a line with the number of the case to run next before each case, and nothing else, to standard output. The first
case that fails ends it with exit status 1; its story is on standard error.
"""

from __future__ import annotations

import sys
import time
import warnings

from tests.long.suites import SUITES


def main(name: str, first: int, seconds: float, count: int | None = None) -> None:
    warnings.simplefilter("error")
    suite = next(suite for suite in SUITES if suite.name == name)
    case = suite.load()
    end = time.monotonic() + seconds
    n = first
    while time.monotonic() < end and (count is None or n < first + count):
        print(n, flush=True)  # noqa: T201 the parent reads it
        case(n)
        n += 1
    print(n, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *(int(text) for text in sys.argv[4:]))
