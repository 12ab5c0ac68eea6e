"""One round by its seed, for `tests/torture/test_torture.py` and for long runs: `case(n)` for n = 0, 1, 2 ..."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from truba.torture.run import run


def case(n: int) -> None:
    """AssertionError, with the story, when something is found; what is on the disk is kept then."""
    report = asyncio.run(run(Path(tempfile.gettempdir()), seconds=0.0, seed=n))
    assert not report.findings, "\n".join([*report.story(), f"kept: {report.kept}"])
    assert report.sessions > 0
