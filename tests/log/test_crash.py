"""What was acknowledged survives a crash at any moment, and nothing else is taken for it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.log.support import HOME, SECTOR, SMALL, bodies, contents, fill, open_log, restore, save, segments, write
from truba.errors import DataDamaged
from truba.log.file import FileLog
from truba.log.frame import frame_bytes
from truba.testing.disk import SimulatedDisk
from truba.testing.log import batch
from truba.types import ORIGIN

LAST = [batch(1, body=b"a" * 100), batch(2, body=b"b" * 1000), batch(3, 4, body=b"c" * 700), batch(7, body=b"d")]


@pytest.mark.parametrize("body_byte", [b"x", b"\0"])
def test_the_log_cut_at_every_byte_is_its_durable_prefix(body_byte: bytes) -> None:
    disk = SimulatedDisk()
    batches = [batch(each.first_seq, each.count, body=body_byte * len(each.body)) for each in LAST]
    entries = fill(disk, batches, segment_bytes=16 * SECTOR)
    name, whole = next(iter((name, bytes(data)) for name, data in segments(disk).items()))
    ends = [SECTOR]
    for each in batches:
        ends.append(ends[-1] + frame_bytes(len(each.body)))
    saved = save(disk)
    for cut in range(SECTOR, ends[-1]):
        restore(disk, saved)
        disk.files[name].now[:] = whole[:cut].ljust(len(whole), b"\0")
        survive = sum(end <= cut for end in ends[1:])
        log = open_log(HOME, disk=disk, segment_bytes=16 * SECTOR)
        assert list(log.read(0)) == entries[:survive]
        assert log.tail == (entries[survive - 1][1] if survive else ORIGIN)
        assert (log.cut is None) == (cut in ends)
        if log.cut is not None:
            assert log.cut_kept is not None
            kept = bytes(disk.files[str(log.cut_kept)].now)
            assert whole[ends[survive] :].startswith(kept.rstrip(b"\0"))
            assert log.cut.first_seq == log.tail.seq + 1
        # The log goes on, and is whole again after the next start.
        write(log, [batch(log.tail.seq + 1, body=b"after the crash")])
        log.close()
        assert [each for each, _ in contents(disk)] == [
            *batches[:survive],
            batch(batches[survive].first_seq, body=b"after the crash"),
        ]


def test_a_real_file_torn_in_its_last_frame(tmp_path: Any) -> None:
    log = open_log(tmp_path / "log")
    write(log, LAST)
    log.close()
    path = tmp_path / "log" / "segment-0000000001.log"
    os.truncate(path, 8 * SECTOR - 700)
    os.truncate(path, 8 * SECTOR)
    log = open_log(tmp_path / "log")
    assert [each for each, _ in log.read(0)] == LAST[:2]
    log.close()


class Writer:
    """Writes batches of all sizes to a simulated disk until the power fails, and trims now and then."""

    def __init__(self, seed: int) -> None:
        self.disk = SimulatedDisk(seed)
        self.acknowledged: list[Any] = []  # what must be there
        self.tried: Any = None  # what may be there

    def run(self, calls: int) -> None:
        """Open the log, check it, and work until so many calls of the disk were made: then process or power fails."""
        dice = self.disk.dice
        left = [calls]

        class PowerFailure(BaseException):
            pass

        original = {name: getattr(self.disk, name) for name in ("pwritev", "fdatasync", "fsync", "rename", "unlink")}

        def limited(name: str) -> Any:
            def call(*args: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise PowerFailure
                return original[name](*args)

            return call

        for name in original:
            setattr(self.disk, name, limited(name))
        try:
            log = FileLog.open(HOME, disk=self.disk, **SMALL)
            self.check(log)
            while True:
                size = dice.choice([0, 10, 400, 420, 1500, 3000, 6000])
                body = dice.randbytes(size) if dice.random() < 0.7 else bytes(size)
                self.tried = batch(log.tail.seq + 1, dice.randint(1, 5), term=max(1, log.tail.term), body=body)
                errors: list[BaseException | None] = []
                log.append(self.tried, errors.append)
                assert errors == [None]
                self.acknowledged.append((self.tried, log.tail))
                self.tried = None
                if dice.random() < 0.1:
                    log.trim(dice.choice(self.acknowledged)[1].seq)
        except PowerFailure:
            pass
        finally:
            for name in original:
                delattr(self.disk, name)
        if dice.random() < 0.3:
            self.disk.kill()
            if dice.random() < 0.5:
                self.disk.forget()
        else:
            self.disk.crash()

    def check(self, log: FileLog) -> None:
        found = list(log.read(log.begin.seq))
        if self.tried is not None and found and found[-1][0] == self.tried:
            self.acknowledged.append(found[-1])
        self.tried = None
        expected = [entry for entry in self.acknowledged if entry[1].seq > log.begin.seq]
        assert found == expected
        assert log.tail == (self.acknowledged[-1][1] if self.acknowledged else ORIGIN)


@pytest.mark.parametrize("seed", range(150))
def test_power_failures(seed: int) -> None:
    writer = Writer(seed)
    for _ in range(12):
        writer.run(writer.disk.dice.choice([3, 10, 40, 120]))
    writer.run(10_000 if seed < 5 else 300)
    assert writer.acknowledged


def test_a_record_of_zeros_does_not_pass_for_unwritten_space() -> None:
    """The last acknowledged frame holds sectors of zeros; a flipped bit in it is damage all the same."""
    disk = SimulatedDisk()
    fill(disk, [batch(1, body=b"a"), batch(2, body=b"x" + bytes(3000) + b"x")])
    data = next(iter(segments(disk).values()))
    data[2 * SECTOR + 96] ^= 1
    with pytest.raises(DataDamaged, match="offset 1024, seq 2"):
        contents(disk)


def test_unfinished_files_are_dropped() -> None:
    disk = SimulatedDisk()
    entries = fill(disk, bodies(3))
    disk.close(disk.open(f"{HOME}/segment-0000000009.log.tmp", os.O_CREAT))
    assert contents(disk) == entries
    assert not [name for name in disk.files if name.endswith(".tmp")]


@pytest.mark.parametrize("sync_failed", [False, True])
def test_what_was_read_once_after_a_kill_survives_the_power(sync_failed: bool) -> None:
    """A frame that was written but not synced is whole for the next process: from then on it must stay."""
    for seed in range(20):
        disk = SimulatedDisk(seed)
        log = open_log(HOME, disk=disk)
        write(log, bodies(3))
        log._fdatasync = lambda fd: None  # noqa: SLF001 - dies between write and sync
        write(log, bodies(1, 800, first=4))
        disk.kill()
        if sync_failed:
            disk.forget()
        read = contents(disk)
        assert len(read) == 4
        disk.crash()
        assert contents(disk) == read


def test_names_that_were_seen_once_after_a_kill_survive_the_power() -> None:
    """A segment was given its name, and the process died before that was synced: frames written to it must stay."""

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    for seed in range(20):
        disk = SimulatedDisk(seed)
        log = open_log(HOME, disk=disk)
        write(log, bodies(7))
        log._directory.sync = kill  # type: ignore[method-assign]  # noqa: SLF001
        with pytest.raises(Killed):
            write(log, bodies(1, first=8))  # enters the second segment, and makes the third
        disk.kill()
        log = open_log(HOME, disk=disk, reserve_bytes=1 << 50)  # no further segment is made, and so no name synced
        write(log, bodies(12, first=log.tail.seq + 1))
        tail = log.tail
        assert log.space == "low"
        disk.crash()
        assert contents(disk)[-1][1] == tail
