"""A peer's checkpoint takes the place of log and store: wholly or not at all, whatever dies at whatever moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truba.compose import build
from truba.errors import DataDamaged, DataLocked
from truba.install import Arrival, Move, Plan, Remove, settle, steps
from truba.kinds import Kind
from truba.log.disk import OsDisk
from truba.log.file import FileLog
from truba.ports.log import LogBatch
from truba.ports.store import Put, Summary, staged_all
from truba.store.rocks import RocksStore
from truba.testing.store import make_head
from truba.types import ORIGIN, Position

CLUSTER = b"sixteen bytes id"
SEGMENT_BYTES = 8 * 512


def make_node(data: Path, log_id: bytes, events: int) -> Position:
    """A node's directory with as many events in its log, and its store at the last but two of them."""
    log = FileLog.open(data / "log", segment_bytes=SEGMENT_BYTES, reserve_bytes=0, log_id=log_id)
    for seq in range(1, events + 1):
        log.append(LogBatch(1, seq, 1, b"%d" % seq * 50), lambda error: None)
    applied = log.position_at(events - 2)
    assert applied is not None
    log.close()
    store = RocksStore.open(data / "store")
    changes = [Put(make_head(n, chunks=(0,)), None, (0, [b"%d" % n])) for n in range(1, events)]
    store.commit(staged_all(store, changes), Summary(applied, {}))
    store.close()
    return applied


def what_is_there(data: Path) -> str:
    """Which whole node a start finds: "old", "new" or "nothing". Anything else fails."""
    if not (data / "log").exists() and not (data / "store").exists():
        return "nothing"
    log = FileLog.open(data / "log", segment_bytes=SEGMENT_BYTES, reserve_bytes=0)
    store = RocksStore.open(data / "store")
    try:
        applied = store.summary.applied
        assert log.position_at(applied.seq) == applied != ORIGIN
        heads = len(list(store.scan(-1)))
        assert heads == applied.seq + 1
        assert all(store.chunk(n, 0) for n in range(1, heads + 1))
        if log.log_id == CLUSTER:
            assert (log.tail, log.begin, list(log.read(applied.seq))) == (applied, applied, [])
            return "new"
        assert (log.tail.seq, len(list(log.read(0)))) == (8, 8)
        return "old"
    finally:
        log.close()
        store.close()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Position]:
    """A copy of a peer's store, ready to be sent."""
    data = tmp_path_factory.mktemp("peer")
    make_node(data, CLUSTER, 20)
    store = RocksStore.open(data / "store")
    applied = store.export(data / "export").applied
    store.close()
    return data / "export", applied


@pytest.fixture(scope="module")
def lagging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("lagging")
    make_node(data, bytes(16), 8)
    return data


def receive(data: Path, peer: tuple[Path, Position]) -> Arrival:
    arrival = Arrival(data)
    try:
        shutil.copytree(peer[0], arrival.store)
    except BaseException:
        arrival.close()
        raise
    return arrival


def join(data: Path, peer: tuple[Path, Position], *, keep: bool = False) -> Path | None:
    arrival = receive(data, peer)
    try:
        return arrival.install(CLUSTER, peer[1], segment_bytes=SEGMENT_BYTES, keep=keep)
    finally:
        arrival.close()


def names(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir())


def test_a_new_node_goes_on_from_the_checkpoint(tmp_path: Path, peer: tuple[Path, Position]) -> None:
    data = tmp_path / "new"
    assert join(data, peer) is None
    assert names(data) == ["log", "store"]
    assert what_is_there(data) == "new"
    assert settle(data) == "nothing"
    assert data.stat().st_mode & 0o777 == 0o700
    log = FileLog.open(data / "log", segment_bytes=SEGMENT_BYTES, reserve_bytes=0, log_id=CLUSTER)
    log.append(LogBatch(1, 19, 1, b"19" * 50), lambda error: None)
    theirs = FileLog.open(peer[0].parent / "log", segment_bytes=SEGMENT_BYTES, reserve_bytes=0)
    assert log.tail == theirs.position_at(19)
    theirs.close()
    log.close()


@pytest.mark.parametrize("keep", [False, True])
def test_a_lagging_node_is_replaced(tmp_path: Path, peer: tuple[Path, Position], lagging: Path, keep: bool) -> None:
    data = tmp_path / "data"
    shutil.copytree(lagging, data)
    (data / "replaced-1").mkdir()
    kept = join(data, peer, keep=keep)
    assert what_is_there(data) == "new"
    assert (kept is not None) == keep
    if kept is not None:
        assert kept == data / "replaced-2"
        assert what_is_there(kept) == "old"
    assert names(data) == ["log", "replaced-1", *(["replaced-2"] if keep else []), "store"]


class Died(BaseException):
    """The process is gone: nothing that it would still have done is done."""


CALLS = ("rename", "replace", "mkdir", "fsync", "fdatasync", "unlink", "rmdir", "write", "pwritev")


@contextmanager
def dying(at: int, calls: list[str]) -> Iterator[None]:
    """Every system call that changes something, from number `at` on, does not happen."""
    with pytest.MonkeyPatch.context() as patch:

        def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def act(*args: Any, **kwargs: Any) -> Any:
                if len(calls) >= at:
                    raise Died
                calls.append(name)
                return call(*args, **kwargs)

            return act

        for name in CALLS:
            patch.setattr(os, name, counted(name, getattr(os, name)))
            if hasattr(OsDisk, name):
                patch.setattr(OsDisk, name, staticmethod(getattr(os, name)))
        yield


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("before", ["old", "nothing"])
def test_killed_between_any_two_calls(
    tmp_path: Path, peer: tuple[Path, Position], lagging: Path, before: str, keep: bool
) -> None:
    """Before the decision a start finds what was there; after it the checkpoint; never a part of both."""
    found: list[str] = []
    for at in range(200):
        data = tmp_path / f"{at}"
        if before == "old":
            shutil.copytree(lagging, data)
        calls: list[str] = []
        died = False
        with dying(at, calls):
            try:
                join(data, peer, keep=keep)
            except Died:
                died = True
        told = settle(data)
        state = what_is_there(data)
        match told:
            case "installed":
                assert state == "new", calls
            case "dropped":
                assert state == before, calls
            case "nothing":
                assert state in ({before, "new"} if died else {"new"}), calls
        assert settle(data) == "nothing"
        left = {name for name in (names(data) if data.exists() else []) if name not in ("log", "store")}
        assert left == ({"replaced-1"} if keep and before == "old" and state == "new" else set())
        if left:
            assert what_is_there(data / "replaced-1") == "old"
        found.append(state)
        shutil.rmtree(data, ignore_errors=True)
        if not died:
            break
    assert found == sorted(found, key=["new"].count), "it went back"
    assert found.count("new") > 10
    assert found.count(before) > 15


def test_killed_while_it_is_brought_to_an_end(tmp_path: Path, peer: tuple[Path, Position], lagging: Path) -> None:
    """The start after the first death dies too, at any call; the one after that finds the checkpoint."""
    decided = tmp_path / "decided"
    shutil.copytree(lagging, decided)
    arrival = receive(decided, peer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("truba.install._carry_out", lambda data, plan: None)
        arrival.install(CLUSTER, peer[1], segment_bytes=SEGMENT_BYTES)
    arrival.close()
    assert names(decided) == ["incoming", "log", "store"]
    for at in range(100):
        data = tmp_path / f"{at}"
        shutil.copytree(decided, data)
        with dying(at, []):
            try:
                settle(data)
                died = False
            except Died:
                died = True
        assert settle(data) in (("installed", "nothing") if died else ("nothing",))
        assert what_is_there(data) == "new"
        assert names(data) == ["log", "store"]
        if not died:
            break
    else:
        raise AssertionError("it never came to its end")


async def test_a_start_brings_it_to_an_end(tmp_path: Path, peer: tuple[Path, Position], lagging: Path) -> None:
    shutil.copytree(lagging, tmp_path / "data")
    arrival = receive(tmp_path / "data", peer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("truba.install._carry_out", lambda data, plan: None)
        arrival.install(CLUSTER, peer[1], segment_bytes=SEGMENT_BYTES)
    arrival.close()
    parts = build(tmp_path / "data", [Kind(7, "transfer", "local:nobody")], transports={"local": lambda *_: object()})
    assert parts.log.log_id == CLUSTER
    parts.log.close()
    parts.store.close()
    assert names(tmp_path / "data") == ["log", "store"]


def test_every_rename_is_durable_before_the_next(
    tmp_path: Path, peer: tuple[Path, Position], lagging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure there must not be the second without the first, or a part without its contents."""
    data = tmp_path / "data"
    shutil.copytree(lagging, data)
    unsynced: set[Path] = set()
    renames: list[str] = []
    durable: set[str] = set()
    rename, fsync = os.rename, os.fsync

    def watched(source: Any, target: Any) -> None:
        assert not unsynced, f"{target} while {unsynced} may be lost"
        if Path(target).name == "READY":
            # The files were made durable by whoever brought them.
            assert durable >= {".", "..", "incoming", "incoming/store", "incoming/log", "incoming/READY.tmp"}
        renames.append(f"{Path(source).relative_to(data)} -> {Path(target).relative_to(data)}")
        unsynced.update({Path(source).parent, Path(target).parent})
        rename(source, target)

    def synced(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        unsynced.discard(path)
        durable.add(os.path.relpath(path, data))
        fsync(fd)

    monkeypatch.setattr(os, "rename", watched)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(OsDisk, "rename", staticmethod(watched))
    monkeypatch.setattr(OsDisk, "fsync", staticmethod(synced))
    join(data, peer, keep=True)
    assert renames == [
        "incoming/log/segment-0000000001.log.tmp -> incoming/log/segment-0000000001.log",
        "incoming/READY.tmp -> incoming/READY",
        "log -> replaced-1/log",
        "incoming/log -> log",
        "store -> replaced-1/store",
        "incoming/store -> store",
    ]
    assert not unsynced


def test_log_and_store_may_be_in_use_until_the_end(tmp_path: Path, peer: tuple[Path, Position], lagging: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(lagging, data)
    log = FileLog.open(data / "log", segment_bytes=SEGMENT_BYTES, reserve_bytes=0)
    store = RocksStore.open(data / "store")
    arrival = receive(data, peer)
    with pytest.raises(DataLocked, match="log is in use by process"):
        arrival.install(CLUSTER, peer[1], segment_bytes=SEGMENT_BYTES)
    log.close()
    with pytest.raises(DataLocked, match="store is open already"):
        arrival.install(CLUSTER, peer[1], segment_bytes=SEGMENT_BYTES)
    store.close()
    arrival.install(CLUSTER, peer[1], segment_bytes=SEGMENT_BYTES)
    arrival.close()
    assert what_is_there(data) == "new"


def test_only_one_checkpoint_arrives_at_a_time(tmp_path: Path, peer: tuple[Path, Position]) -> None:
    first = Arrival(tmp_path)
    with pytest.raises(DataLocked):
        Arrival(tmp_path)
    with pytest.raises(DataLocked):
        settle(tmp_path)
    with pytest.raises(ValueError, match="has not arrived"):
        first.install(CLUSTER, peer[1])
    first.close()
    first.close()
    assert join(tmp_path, peer) is None  # what the first had left is dropped
    assert what_is_there(tmp_path) == "new"


def test_a_checkpoint_that_leads_elsewhere_changes_nothing(
    tmp_path: Path, peer: tuple[Path, Position], lagging: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(lagging, data)
    source, position = peer
    other = position._replace(chain=bytes(16))
    with pytest.raises(DataDamaged, match="was said to lead to 1-18"):
        join(data, (source, other))
    assert settle(data) == "dropped"
    assert what_is_there(data) == "old"


def test_a_decision_that_is_not_what_was_written_is_damage(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    whole = Plan("replaced-1", keep=True).encode()
    assert Plan.decode(whole) == Plan("replaced-1", keep=True)
    flips = [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    ]
    for damaged in (b"", b"{}", *(whole[:length] for length in range(len(whole))), *flips):
        (tmp_path / "incoming" / "READY").write_bytes(damaged)
        with pytest.raises(DataDamaged, match="READY is not what was written"):
            settle(tmp_path)


PARTS = ("log", "store", "incoming/log", "incoming/store")


@given(st.sets(st.sampled_from(PARTS), min_size=0), st.booleans(), st.integers(0, 8))
def test_steps_may_be_interrupted_anywhere(present: set[str], keep: bool, done: int) -> None:
    """The names alone, moved about: whatever was done before, the rest leads to the same end."""
    plan = Plan("replaced-1", keep)
    present = {*present, "incoming", "incoming/log", "incoming/store"}
    origin = {name: name for name in present}

    def act(step: Move | Remove) -> None:
        match step:
            case Move(source, target):
                assert target not in origin, "it would be overwritten"
                origin[target] = origin.pop(source)
                if "/" in target:
                    origin.setdefault(target.partition("/")[0], "made")
            case Remove(name):
                assert {"log", "store"} <= {at for at, was in origin.items() if was.startswith("incoming/")}
                for each in [each for each in origin if each == name or each.startswith(f"{name}/")]:
                    del origin[each]

    for step in steps(set(origin), plan)[:done]:
        act(step)
    for step in steps(set(origin), plan):
        if not (isinstance(step, Remove) and step.name not in origin):
            act(step)
    expected = {"log": "incoming/log", "store": "incoming/store"}
    former = present & {"log", "store"}
    if keep and former:
        expected |= {"replaced-1": "made"} | {f"replaced-1/{part}": part for part in former}
    assert origin == expected
