"""Checkpoints from one node to another: whole or not there, whatever is cut or changed on the way."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.played import SECRET, Played, opened, through
from truba.cluster import door as doors
from truba.cluster.peers import Peer
from truba.cluster.words import is_plain
from truba.errors import Busy, DataDamaged, DataUnwritable, Unavailable

FILES = {
    "store/000012.sst": os.urandom(3 * 2**20 + 17),
    "store/CURRENT": b"MANIFEST-000005\n",
    "empty": b"",
    "exact": bytes(2**20),
}


def there(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def host() -> Played:
    played = Played()
    played.files = dict(FILES)
    return played


async def test_a_transfer_is_the_same_and_leaves_nothing_behind(tmp_path: Path, host: Played) -> None:
    seen: list[tuple[int, int]] = []
    total = sum(map(len, FILES.values()))
    async with opened(host, tmp_path / "scratch") as door:
        peer = await Peer.connect(door.bound, SECRET)
        exported = await peer.fetch(tmp_path / "got", lambda done, of: seen.append((done, of)))
        assert exported == host.exported
        assert (await peer.status()).name == "a"
        with pytest.raises(FileExistsError, match="is there already"):
            await peer.fetch(tmp_path / "got")
        await peer.close()
    assert there(tmp_path / "got") == FILES
    assert (seen[-1], len(seen)) == ((total, total), 6)
    assert names(tmp_path / "scratch") == []
    assert names(tmp_path) == ["got", "scratch"]
    assert (tmp_path / "got").stat().st_mode & 0o777 == 0o700


async def test_it_is_durable_before_it_has_its_name(
    tmp_path: Path, host: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file and every directory, and then the name itself: who installs it relies on that."""
    synced: list[str] = []
    fsync, rename = os.fsync, os.rename
    before: set[str] = set()

    def watched(fd: int) -> None:
        synced.append(os.path.relpath(Path(f"/proc/self/fd/{fd}").readlink(), tmp_path))
        fsync(fd)

    def named(source: Path, target: Path) -> None:
        if Path(target).name == "got":
            before.update(synced)
            synced.clear()
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "rename", named)
    async with opened(host, tmp_path / "scratch") as door:
        peer = await Peer.connect(door.bound, SECRET)
        await peer.fetch(tmp_path / "got")
        await peer.close()
    assert before >= {"got.part", "got.part/store", *(f"got.part/{name}" for name in FILES)}
    assert synced == ["."]


async def test_one_transfer_at_a_time(tmp_path: Path, host: Played) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(directory: Path) -> None:
        begun.set()
        await go_on.wait()

    host.before_export = wait
    async with opened(host, tmp_path / "scratch") as door:
        one, two = [await Peer.connect(door.bound, SECRET) for _ in range(2)]
        first = asyncio.ensure_future(one.fetch(tmp_path / "one"))
        await begun.wait()
        with pytest.raises(Busy, match="another node is being sent a checkpoint"):
            await two.fetch(tmp_path / "two")
        assert (await two.status()).name == "a"
        go_on.set()
        await first
        await two.fetch(tmp_path / "two")
        await one.close()
        await two.close()
    assert there(tmp_path / "one") == there(tmp_path / "two") == FILES


async def test_cut_at_every_stage_and_begun_again(tmp_path: Path, host: Played) -> None:
    """After each byte of what comes before the files, and at many places in them; the next try starts afresh."""
    host.files = {"a": os.urandom(9_000), "b/c": b"x"}
    sent = 0

    def cut(place: int, offset: int, data: bytes) -> bytes:
        return data[: max(place - offset, 0)]

    def measure(offset: int, data: bytes) -> bytes:
        nonlocal sent
        sent = offset + len(data)
        return data

    async with opened(host, tmp_path / "scratch") as door:
        async with through(door, measure) as where:
            peer = await Peer.connect(where, SECRET)
            await peer.fetch(tmp_path / "whole")
            await peer.close()
        assert there(tmp_path / "whole") == host.files
        places = [*range(5, 300, 7), *range(300, sent, 997), *range(sent - 40, sent)]
        for place in places:
            async with through(door, partial(cut, place)) as where:
                peer = await Peer.connect(where, SECRET)
                fetching = asyncio.ensure_future(peer.fetch(tmp_path / "got"))
                with pytest.raises(Unavailable):
                    async with asyncio.timeout(5):
                        await fetching
                await peer.close()
            assert not (tmp_path / "got").exists()
            async with door.transfer:  # it hears of the cut in its own time
                pass
        peer = await Peer.connect(door.bound, SECRET)
        await peer.fetch(tmp_path / "got")
        await peer.close()
    assert there(tmp_path / "got") == host.files
    assert names(tmp_path / "scratch") == []


async def test_a_changed_byte_is_refused(tmp_path: Path, host: Played) -> None:
    def change(offset: int, data: bytes) -> bytes:
        at = 2_000_000 - offset
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if 0 <= at < len(data) else data

    async with opened(host, tmp_path / "scratch") as door, through(door, change) as where:
        peer = await Peer.connect(where, SECRET)
        with pytest.raises(DataDamaged, match="came otherwise than it was"):
            await peer.fetch(tmp_path / "got")
        await peer.close()
    assert names(tmp_path) == ["scratch"]


async def test_a_huge_transfer_to_a_slow_reader_stays_small(tmp_path: Path, host: Played) -> None:
    huge_bytes = 256 << 20

    async def sparse(directory: Path) -> None:
        with (directory / "huge").open("wb") as file:
            file.truncate(huge_bytes)

    host.before_export, host.files = sparse, {}
    async with opened(host, tmp_path / "scratch") as door:
        tracemalloc.start()
        reader, writer = await asyncio.open_connection(*door.bound, limit=65_536)
        writer.write(_asked())
        got = 0
        while got < huge_bytes // 4:  # a quarter tells as much as all of it
            got += len(await reader.read(65_536))
            await asyncio.sleep(0)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 8 << 20
        writer.transport.abort()
        async with door.transfer:
            pass
    assert names(tmp_path / "scratch") == []


def _asked() -> bytes:
    return b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%b\r\n*1\r\n$10\r\nCHECKPOINT\r\n" % (len(SECRET), SECRET)


async def test_who_takes_nothing_is_left(tmp_path: Path, host: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "STALL_TIMEOUT_S", 0.1)
    host.files = {"big": bytes(32 << 20)}
    async with opened(host, tmp_path / "scratch") as door:
        reader, writer = await asyncio.open_connection(*door.bound, limit=1024)
        writer.write(_asked())
        await reader.readexactly(20)
        async with asyncio.timeout(10), door.transfer:
            pass
        peer = await Peer.connect(door.bound, SECRET)
        await peer.fetch(tmp_path / "got")  # the next one is served
        await peer.close()
        writer.close()


async def test_a_door_that_closes_cuts_the_transfer_and_cleans_up(tmp_path: Path, host: Played) -> None:
    begun = asyncio.Event()

    async def stay(directory: Path) -> None:
        (directory / "half").write_bytes(b"x")
        begun.set()
        await asyncio.Event().wait()

    host.before_export = stay
    async with opened(host, tmp_path / "scratch") as door:
        peer = await Peer.connect(door.bound, SECRET)
        fetching = asyncio.ensure_future(peer.fetch(tmp_path / "got"))
        await begun.wait()
        await door.close()
        with pytest.raises(Unavailable):
            await fetching
        await peer.close()
    assert names(tmp_path / "scratch") == []
    assert not (tmp_path / "got").exists()


async def test_what_a_crash_left_is_removed(tmp_path: Path, host: Played) -> None:
    left = tmp_path / "scratch" / "transfer-dead"
    left.mkdir(parents=True)
    (left / "x").write_bytes(b"x")
    (tmp_path / "got.part").mkdir()
    (tmp_path / "got.part" / "y").write_bytes(b"y")
    async with opened(host, tmp_path / "scratch") as door:
        assert not left.exists()
        peer = await Peer.connect(door.bound, SECRET)
        await peer.fetch(tmp_path / "got")
        await peer.close()
    assert there(tmp_path / "got") == FILES


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), DataUnwritable("no space left"), Busy("no")])
async def test_a_checkpoint_that_cannot_be_made(tmp_path: Path, host: Played, error: Exception) -> None:
    async def fail(directory: Path) -> None:
        raise error

    host.before_export = fail
    async with opened(host, tmp_path / "scratch") as door:
        peer = await Peer.connect(door.bound, SECRET)
        with pytest.raises((Unavailable, Busy), match=r"(?i)\bno\b"):
            await peer.fetch(tmp_path / "got")
        host.before_export = None
        await peer.fetch(tmp_path / "got")
        await peer.close()
    assert there(tmp_path / "got") == FILES


async def test_a_file_that_shrinks_while_it_is_sent(
    tmp_path: Path, host: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = doors._take_note  # noqa: SLF001 - the moment between the hashes and the bytes

    def shrink(directory: Path) -> object:
        notes = taken(directory)
        os.truncate(directory / "exact", 10)
        return notes

    monkeypatch.setattr(doors, "_take_note", shrink)
    async with opened(host, tmp_path / "scratch") as door:
        peer = await Peer.connect(door.bound, SECRET)
        with pytest.raises(Unavailable, match="exact became shorter while it was sent"):
            await peer.fetch(tmp_path / "got")
        await peer.close()
    assert not (tmp_path / "got").exists()


async def test_a_name_that_leads_out_of_the_directory_is_refused(tmp_path: Path, host: Played) -> None:
    host.files = {"a/b/c": b"x"}

    def change(offset: int, data: bytes) -> bytes:
        return data.replace(b"a/b/c", b"../../"[:5])

    async with opened(host, tmp_path / "scratch") as door, through(door, change) as where:
        peer = await Peer.connect(where, SECRET)
        with pytest.raises(Unavailable, match="is no file of a checkpoint"):
            await peer.fetch(tmp_path / "got")
        await peer.close()


def test_plain_names() -> None:
    assert all(map(is_plain, ("a", "a/b", "000012.sst", "..a", "ёлка")))
    assert not any(map(is_plain, ("", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0b", "a\nb", "a\\b", "x" * 513)))
