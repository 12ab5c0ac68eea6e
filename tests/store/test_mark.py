"""The mark beside a store: durable before anybody relies on it, and never taken for another one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from truba.errors import DataDamaged
from truba.store.mark import read_mark, write_mark
from truba.types import Position

POSITION = Position(3, 117, bytes(range(16)))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_mark(tmp_path) is None
    for position in (POSITION, POSITION._replace(seq=118), Position(2**63, 2**63, b"\xff" * 16)):
        write_mark(tmp_path, position)
        assert read_mark(tmp_path) == position
    assert [path.name for path in tmp_path.iterdir()] == ["APPLIED"]


def test_every_changed_or_missing_byte_is_damage(tmp_path: Path) -> None:
    write_mark(tmp_path, POSITION)
    path = tmp_path / "APPLIED"
    whole = path.read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(DataDamaged, match="is not what was written"):
                read_mark(tmp_path)


def test_its_contents_are_durable_before_its_name_and_that_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power failure leaves an empty mark, or an older one, which a store that went back would agree with."""
    calls: list[str] = []

    def watched(name: str) -> None:
        call = getattr(os, name)

        def act(target: Any, *args: Any) -> Any:
            path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)
            calls.append(f"{name} {os.path.relpath(path, tmp_path)}")
            return call(target, *args)

        monkeypatch.setattr(os, name, act)

    for name in ("write", "fdatasync", "fsync", "replace"):
        watched(name)
    write_mark(tmp_path, POSITION)
    monkeypatch.undo()
    assert calls == ["write APPLIED.tmp", "fdatasync APPLIED.tmp", "replace APPLIED.tmp", "fsync ."]
