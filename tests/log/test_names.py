"""Which files there are is made durable one change at a time: no order of names on the disk is relied on."""

from __future__ import annotations

from tests.log.support import HOME, bodies, contents, open_log, write
from truba.testing.disk import SimulatedDisk


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
