"""Handlers for the tests: one that always fails, and a table as `truba handlers` takes it."""

from __future__ import annotations

from pathlib import Path

from truba.session import RepeatData


async def handler(repeat: RepeatData) -> None:
    raise RuntimeError("it cannot be done")


async def write_down(repeat: RepeatData) -> None:
    """Leaves its records in files of the working directory, named by the session."""
    path = Path(f"finished-{repeat.session.id}")
    path.write_bytes(b"\n".join(repeat.records))  # noqa: ASYNC240 - a few bytes, in a test


HANDLERS = {7: write_down, 9: handler}
EMPTY: dict[int, object] = {}
NAMED = {"transfer": write_down}
NUMBERS = {7: 7}
