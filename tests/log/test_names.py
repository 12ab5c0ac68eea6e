"""Which files there are is made durable one change at a time: no order of names on the disk is relied on."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.log.support import HOME, bodies, contents, open_log, write
from truba.errors import DataUnwritable
from truba.testing.disk import Mount, ProcessGone, SimulatedDisk


class NamesWatched(SimulatedDisk):
    """A change of names is refused while the one before may still be lost. Unfinished files do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[str] = []
        self.changes: list[str] = []

    def changed(self, what: str) -> None:
        assert not self.pending, f"{what} while {self.pending} may be lost"
        self.pending.append(what)
        self.changes.append(what)

    def rename(self, old: str, new: str) -> None:
        self.changed(f"{old} -> {new}")
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        if not path.endswith(".tmp"):
            self.changed(f"{path} removed")
        super().unlink(path)

    def fsync(self, fd: int) -> None:
        if isinstance(self._open[fd], str):
            self.pending.clear()
        super().fsync(fd)


def test_every_change_of_names_is_durable_before_the_next() -> None:
    disk = NamesWatched()
    log = open_log(HOME, disk=disk)
    for first in range(1, 200, 20):
        write(log, bodies(20, 300, first=first))
        log.trim(first + 10)
    log.close()
    assert not disk.pending
    kinds = {change.rpartition(".")[2] for change in disk.changes}
    assert kinds == {"log", "tmp", "log removed"}, "made, recycled and dropped"
    assert len(contents(disk)) > 5


class DirectoriesWatched(SimulatedDisk):
    """Knows of which directories the name may still be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.undurable: set[str] = set()

    def mkdir(self, path: str, mode: int) -> None:
        super().mkdir(path, mode)
        self.undurable.add(path)

    def fsync(self, fd: int) -> None:
        if isinstance(above := self._open[fd], str):
            self.undurable = {path for path in self.undurable if str(Path(path).parent) != above}
        super().fsync(fd)


@pytest.mark.parametrize("trouble", [ProcessGone(), OSError(errno.EIO, "Input/output error")])
def test_g1_the_names_of_the_directories_are_durable_whoever_made_them(trouble: BaseException) -> None:
    """The one who made them may have been killed before he had synced them, or have been told that he cannot."""
    path = Path("/var/truba/log")
    calls, failed, at = 0, True, 0

    def before(name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise trouble

    while failed:
        disk, calls, at = DirectoriesWatched(), 0, at + 1
        try:
            open_log(path, disk=Mount(disk, before)).close()
            failed = calls >= at
        except (ProcessGone, DataUnwritable):
            pass
        disk.kill()
        log = open_log(path, disk=disk)
        write(log, bodies(1))
        assert not disk.undurable, at
        log.close()
    assert at > 10


def test_directories_above_that_nobody_may_read_are_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = DirectoriesWatched()
    mine = disk.open

    def not_for_all(path: str, flags: int, mode: int = 0o600) -> int:
        if path == "/":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return mine(path, flags, mode)

    disk.mkdir("/var", 0o755)
    monkeypatch.setattr(disk, "open", not_for_all)
    write(log := open_log(Path("/var/truba/log"), disk=disk), bodies(1))
    log.close()
    assert disk.undurable == {"/var"}
