"""`truba.open` on real files: what users see."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest

import truba
from tests.backup.sample import children
from truba.backup.manifest import NAME
from truba.backup.restore import restore
from truba.backup.verify import verify
from truba.embedded import EmbeddedPipe
from truba.machine.digest import state_digest
from truba.node.node import Limits
from truba.ports.backup import Made
from truba.store.rocks import RocksStore


async def nobody(repeat: truba.RepeatData) -> None:
    raise RuntimeError("not to be called")


def kind(handler: truba.Handler = nobody, **policy: float) -> truba.Kind:
    return truba.Kind(7, "transfer", handler, **({"recovery_delay_s": 0, "jitter_s": 0} | policy))  # type: ignore[arg-type]


async def test_handler_gets_what_was_stored_and_returning_deletes_it(tmp_path: Path) -> None:
    got: asyncio.Queue[truba.RepeatData] = asyncio.Queue()

    async def finish(repeat: truba.RepeatData) -> None:
        await got.put(repeat)

    async with truba.open(tmp_path / "data", kinds=[kind(finish)]) as pipe:
        session = await pipe.new(7, b"one")
        await session.append(b"two", b"three")
        await session.store(0)
        repeat = await asyncio.wait_for(got.get(), 10)
        assert (list(repeat.records), repeat.attempt, repeat.cause) == (
            [b"one", b"two", b"three"],
            1,
            truba.Cause.STORED,
        )
        assert (repeat.session.id, repeat.session.epoch) == (session.id, 1)
    async with truba.open(tmp_path / "data", kinds=[kind(finish)]) as pipe:
        assert not pipe.node.machine.counts


async def test_plain_function_is_a_handler_too(tmp_path: Path) -> None:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def finish(repeat: truba.sync.RepeatData) -> None:
        repeat.session.append(b"by a thread")
        assert not repeat.session.ended
        repeat.session.delete()
        loop.call_soon_threadsafe(done.set)

    async with truba.open(tmp_path / "data", kinds=[kind(finish)]) as pipe:
        await (await pipe.new(7, b"one")).store(0)
        await asyncio.wait_for(done.wait(), 10)
        assert not pipe.node.machine.counts


async def test_it_stays_where_it_is_when_the_program_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another pipe may have a directory of the same name, which it does not expect to be written to."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    async with truba.open("data", kinds=[kind()]) as pipe:
        monkeypatch.chdir(tmp_path / "there")
        async with truba.open("data", kinds=[kind()]) as other:
            for _ in range(2):
                await pipe.new(7, b"one")
                await pipe.node.checkpoint()
            assert not other.node.machine.counts
    async with truba.open(tmp_path / "here" / "data", kinds=[kind()]) as pipe:
        assert len(list(pipe.node.machine.scan())) == 2


async def test_a_log_that_may_not_be_read_is_not_called_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told that it is gone moves the store aside, to begin anew."""
    async with truba.open(tmp_path / "data", kinds=[kind()]) as pipe:
        await pipe.new(7, b"one")
    scandir, listdir = os.scandir, os.listdir

    def denied(call: Any) -> Any:
        def look(path: Any = ".") -> Any:
            if Path(path).name == "log":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path)

        return look

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", denied(scandir))
        patch.setattr(os, "listdir", denied(listdir))
        with pytest.raises(truba.DataUnwritable, match="Permission denied"):
            await truba.open(tmp_path / "data", kinds=[kind()])
    async with truba.open(tmp_path / "data", kinds=[kind()]) as pipe:
        assert len(list(pipe.node.machine.scan())) == 1


class Kinds(IntEnum):
    TRANSFER = 7


@pytest.mark.parametrize(
    ("number", "tag", "trace"),
    [(7.0, None, b""), (Decimal(7), None, b""), (7, 1.5, b""), (7, None, "00-4bf92f3577b34da6a3ce929d0e0e4736-01")],
)
async def test_what_would_never_be_read_again_is_refused_before_it_is_stored(
    tmp_path: Path, number: Any, tag: Any, trace: Any
) -> None:
    """7.0 is a key of what has 7, and so was taken, and acknowledged; no start could read it."""
    async with truba.open(tmp_path / "data", kinds=[kind()]) as pipe:
        with pytest.raises(TypeError):
            await pipe.new(number, b"one", tag=tag, trace=trace)
        if number != 7 or type(number) is not int:
            with pytest.raises(TypeError):
                await pipe.pause_kind(number)
        await pipe.new(Kinds.TRANSFER, b"one", tag=True, trace=bytearray(b"00-4b"))
    async with truba.open(tmp_path / "data", kinds=[kind()]) as pipe:
        assert [(head.kind, head.trace) for head in pipe.node.machine.scan()] == [(7, b"00-4b")]


async def test_a_session_whose_opening_was_cancelled_is_given_back_by_itself(tmp_path: Path) -> None:
    async with truba.open(tmp_path / "data", kinds=[kind(recovery_delay_s=1000)]) as pipe:

        async def work(*records: bytes) -> None:
            async with pipe.session(7, *records):
                raise AssertionError("not to be entered")

        for records in ((), (b"one",)):
            task = asyncio.create_task(work(*records))
            await asyncio.sleep(0)
            assert len(pipe.node.machine.owned) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        heads = list(pipe.node.machine.scan())
        assert [(head.phase, head.detail) for head in heads] == [(truba.Phase.STORED, "cancelled")]


async def test_block_that_raises_gives_the_session_back_with_its_reason(tmp_path: Path) -> None:
    async with truba.open(tmp_path / "data", kinds=[kind(recovery_delay_s=1000)]) as pipe:
        with pytest.raises(ZeroDivisionError):
            async with pipe.session(7, b"one") as session:
                _ = 1 / 0
        head = pipe.node.look_up(session.id)
        assert (head.phase, head.cause) == (truba.Phase.STORED, truba.Cause.FAILED)
        assert head.detail == "ZeroDivisionError: division by zero"
        async with pipe.session(7, b"two") as kept:
            await kept.store(1000)
        assert pipe.node.look_up(kept.id).phase is truba.Phase.STORED
        async with pipe.session(7, b"three") as gone:
            pass
        with pytest.raises(truba.NoSession):
            pipe.node.look_up(gone.id)


async def test_g6_restart_finds_what_was_there_whatever_was_checkpointed(tmp_path: Path) -> None:
    """Many small checkpoints and restarts; G6."""
    limits = Limits(checkpoint_bytes=50_000)
    before: dict[truba.Index, tuple[object, list[bytes]]] = {}

    def sessions(pipe: EmbeddedPipe) -> dict[truba.Index, tuple[object, list[bytes]]]:
        machine = pipe.node.machine
        return {h.id: (msgspec.structs.asdict(h) | {"chunks": ()}, machine.records(h.number)) for h in machine.scan()}

    async def work(pipe: truba.Pipe, number: int) -> None:
        session = await pipe.new(7, b"%d" % number)
        for _ in range(number % 5):
            await session.append(b"x" * 300)
        await (session.delete() if number % 3 else session.store(10**6))

    for round_number in range(1, 4):
        async with truba.open(tmp_path / "data", kinds=[kind()], limits=limits) as pipe:
            assert sessions(pipe) == before
            for wave in range(10):
                await asyncio.gather(*(work(pipe, number) for number in range(wave * 90, wave * 90 + 90)))
                if wave % 3 == 2:
                    await pipe.node.checkpointer.wait()
            assert pipe.node.checkpointer.done >= 3
            before = sessions(pipe)
            assert len(before) == 300 * round_number
            digest = state_digest(pipe.node.machine)
            await pipe.node.checkpoint()
            assert state_digest(pipe.node.machine) == digest


async def test_checkpoints_end_though_nobody_awaits_a_batch(tmp_path: Path) -> None:
    """As over TCP: answers hang on the batch, and a batch done inline is settled before the checkpoint looks at it."""
    async with truba.open(tmp_path / "data", kinds=[kind()], limits=Limits(checkpoint_bytes=2000)) as pipe:
        node = pipe.node
        owner = node.presence.attach()
        for number in range(40):
            node.store(node.new(owner, 7, [b"x" * 100]), 10**6 + number)
            answered = asyncio.Event()
            node.when_durable(lambda _, answered=answered: answered.set())
            await answered.wait()
        await asyncio.wait_for(node.checkpointer.wait(), 10)
        assert node.checkpointer.done >= 1
        assert node.base.summary.applied.seq > 1


async def test_close_under_load_leaves_a_state_that_the_log_leads_to(tmp_path: Path) -> None:
    """What is written while the last checkpoint begins is in it, or after it; never both, never neither."""
    patient = kind(recovery_delay_s=3_600)  # nobody is handed what is to be removed
    for round_number in range(12):
        told: list[truba.Index] = []
        pipe = await truba.open(tmp_path / "data", kinds=[patient])
        before = sum(pipe.node.machine.counts.values())

        async def work(pipe: truba.Pipe, told: list[truba.Index]) -> None:
            with contextlib.suppress(truba.OperationError):
                while True:
                    session = await pipe.new(7, b"a")
                    await session.append(b"b")
                    await session.store(10**6)
                    told.append(session.id)

        tasks = [asyncio.create_task(work(pipe, told)) for _ in range(8)]
        for _ in range(20 + 3 * round_number):
            await asyncio.sleep(0)
        await pipe.close()
        await asyncio.gather(*tasks)
        async with truba.open(tmp_path / "data", kinds=[patient]) as again:
            for session_id in told:
                head = again.node.look_up(session_id)
                assert again.node.machine.records(head.number) == [b"a", b"b"]
            stored = again.node.machine.counts[7, truba.Phase.STORED]
            assert stored >= before + len(told)
            for head in list(again.node.machine.scan()):
                await again.remove(head.id)


async def test_directory_is_held_by_one_pipe(tmp_path: Path) -> None:
    async with truba.open(tmp_path / "data", kinds=[kind()]):
        with pytest.raises(truba.DataLocked):
            await truba.open(tmp_path / "data", kinds=[kind()])


async def test_kinds_are_checked_before_anything_is_opened(tmp_path: Path) -> None:
    for kinds in (
        [],
        [kind(), kind()],
        [truba.Kind(7, "a", nobody), truba.Kind(7, "b", nobody)],
        [truba.Kind(7, "a", nobody), truba.Kind(8, "a", nobody)],
        [truba.Kind(7, "a", "nowhere:x")],
        [truba.Kind(7, "a", "local:no.such:thing")],
    ):
        with pytest.raises(truba.ConfigError):
            await truba.open(tmp_path / "data", kinds=kinds)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("bad", ["text", 5, None, [b"list"]])
async def test_records_are_bytes(tmp_path: Path, bad: object) -> None:
    async with truba.open(tmp_path / "data", kinds=[kind()]) as pipe:
        with pytest.raises(TypeError, match="nothing was stored"):
            await pipe.new(7, b"good", bad)  # type: ignore[arg-type]
        session = await pipe.new(7)
        with pytest.raises(TypeError, match="nothing was stored"):
            await session.append(bad)  # type: ignore[arg-type]
        await session.append(bytearray(b"these too"), memoryview(b"and these"))
        assert pipe.node.machine.records(session.id.seq) == [b"these too", b"and these"]


def test_process_that_dies_leaves_its_sessions_to_the_handler_of_the_next(tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text(
        "import asyncio, os, truba\n"
        "async def main():\n"
        "    kind = truba.Kind(7, 'transfer', handler=print)\n"
        "    pipe = await truba.open('data', kinds=[kind])\n"
        "    session = await pipe.new(7, b'take')\n"
        "    await session.append(b'taken')\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "dies.py"], cwd=tmp_path, check=False, timeout=60).returncode == -9
    found: list[tuple[list[bytes], truba.Cause]] = []

    async def recover() -> None:
        done = asyncio.Event()

        async def finish(repeat: truba.RepeatData) -> None:
            found.append((list(repeat.records), repeat.cause))
            done.set()

        async with truba.open(tmp_path / "data", kinds=[kind(finish)]):
            await asyncio.wait_for(done.wait(), 10)

    asyncio.run(recover())
    assert found == [([b"take", b"taken"], truba.Cause.RESTART)]


async def test_on_parked_hears_of_a_session_whose_attempts_are_used_up(tmp_path: Path) -> None:
    heard: asyncio.Queue[truba.ParkedSession] = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)  # the handler's own error

    async def fails(repeat: truba.RepeatData) -> None:
        raise ValueError("no such account")

    kinds = [truba.Kind(7, "transfer", fails, jitter_s=0, max_attempts=1, on_parked=heard.put)]
    async with truba.open(tmp_path / "data", kinds=kinds) as pipe:
        session = await pipe.new(7, b"one")
        await session.store(0)
        parked = await asyncio.wait_for(heard.get(), 10)
        assert parked == truba.ParkedSession(
            session.id,
            7,
            "transfer",
            truba.Cause.FAILED,
            "1 attempts, max_attempts is 1: ValueError: no such account",
            1,
            1,
        )


@pytest.mark.parametrize("hook", ["", (), [""], [3], 3, "mail:somebody"])
def test_what_cannot_be_told_of_parked_sessions_is_refused(tmp_path: Path, hook: object) -> None:
    async def open_it() -> None:
        async with truba.open(tmp_path / "data", kinds=[kind(on_parked=hook)]):  # type: ignore[arg-type]
            pass

    with pytest.raises(truba.ConfigError, match="on_parked"):
        asyncio.run(open_it())
    assert not (tmp_path / "data").exists()


async def test_a_backup_is_made_while_it_goes_on(tmp_path: Path) -> None:
    data, directory = tmp_path / "data", tmp_path / "backups" / "monday"
    async with truba.open(data, kinds=[kind(recovery_delay_s=1000)]) as pipe:
        before = await pipe.new(7, b"before", b"and more")
        making = asyncio.create_task(pipe.backup(directory))
        await asyncio.sleep(0)
        with pytest.raises(truba.Busy, match=f"a backup to {directory} is under way"):
            await pipe.backup(str(tmp_path / "other"))
        while not making.done():
            await pipe.new(7, b"meanwhile")
        made = await making
        for place in (directory, directory / "store" / "in", data, data / "log" / "in"):
            with pytest.raises(truba.TrubaError, match=r"not empty|is a backup|the pipe's own"):
                await pipe.backup(place)
        assert (await pipe.backup(tmp_path / "again")).at > made.at
    assert not (data / "backing-up").exists()
    verdict = verify(directory)
    assert verdict.sound
    manifest = verdict.manifest
    assert made == Made(manifest.at.term, manifest.at.seq, manifest.sessions, manifest.bytes, manifest.made_ms)
    assert made.at >= before.id
    restore(directory, tmp_path / "restored")
    async with truba.open(tmp_path / "restored", kinds=[kind()]) as pipe:
        assert pipe.node.machine.records(pipe.node.look_up(before.id).number) == [b"before", b"and more"]


async def half_way(pipe: EmbeddedPipe, directory: Path) -> asyncio.Task[Made]:
    """A backup whose process stands still before its end."""
    making = asyncio.create_task(pipe.backup(directory))
    while not (found := children(os.getpid())):  # noqa: ASYNC110 what it waits for is another process
        await asyncio.sleep(0.001)
    os.kill(found[0], signal.SIGSTOP)
    return making


async def test_a_backup_of_a_pipe_that_is_closed_is_unfinished(tmp_path: Path) -> None:
    async with truba.open(tmp_path / "data", kinds=[kind()]) as pipe:
        making = await half_way(pipe, tmp_path / "backup")
    with pytest.raises(truba.Unavailable, match="is unfinished: remove it"):
        await making
    assert not (tmp_path / "backup" / NAME).exists()
    assert not children(os.getpid())
    assert not (tmp_path / "data" / "backing-up").exists()


async def test_a_backup_that_is_cancelled_leaves_the_pipe_alone(tmp_path: Path) -> None:
    async with truba.open(tmp_path / "data", kinds=[kind()]) as pipe:
        making = await half_way(pipe, tmp_path / "backup")
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        await (await pipe.new(7, b"one")).delete()
        assert (await pipe.backup(tmp_path / "another")).sessions == 0
    with pytest.raises(truba.Unavailable, match="nothing was begun"):
        await pipe.backup(tmp_path / "late")


@pytest.mark.parametrize("earlier", [False, True])
async def test_no_backup_begins_while_a_pipe_closes(tmp_path: Path, earlier: bool) -> None:
    """It would go on without the pipe's lock, and nobody would end it."""
    closing = asyncio.Event()

    async def slow(repeat: truba.RepeatData) -> None:
        closing.clear()
        try:
            await asyncio.sleep(60)
        finally:
            closing.set()
            await asyncio.sleep(0.05)

    closing.set()
    pipe = await truba.open(tmp_path / "data", kinds=[truba.Kind(7, "transfer", slow)])
    if earlier:
        await pipe.backup(tmp_path / "earlier")
    await (await pipe.new(7, b"a")).store(0)
    while closing.is_set():  # noqa: ASYNC110 until it is handed over
        await asyncio.sleep(0.001)
    ending = asyncio.create_task(pipe.close())
    await closing.wait()
    with pytest.raises(truba.Unavailable, match="nothing was begun"):
        await pipe.backup(tmp_path / "late")
    assert not ending.done()
    await ending
    assert not (tmp_path / "late").exists()


async def test_what_a_killed_backup_held_is_let_go_of(tmp_path: Path) -> None:
    """Links to tables that the store has dropped since would keep their place on the disk."""
    async with truba.open(tmp_path / "data", kinds=[kind()]):
        pass
    (tmp_path / "data" / "backing-up" / "store").mkdir(parents=True)
    async with truba.open(tmp_path / "data", kinds=[kind()]):
        assert not (tmp_path / "data" / "backing-up").exists()


async def test_a_backup_asked_for_in_the_moment_of_the_close_says_so(tmp_path: Path) -> None:
    """Whoever asked was not cancelled."""
    pipe = await truba.open(tmp_path / "data", kinds=[kind()])
    told, _ = await asyncio.gather(pipe.backup(tmp_path / "backup"), pipe.close(), return_exceptions=True)
    assert isinstance(told, truba.Unavailable)


async def test_a_backup_to_where_no_directory_can_be_leaves_nothing_to_remove(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with truba.open(tmp_path / "data", kinds=[kind()]) as pipe:
        with pytest.raises(truba.TrubaError, match=r"no backup was made in .*: .*Not a directory"):
            await pipe.backup(tmp_path / "file" / "backup")


async def test_a_backup_for_which_the_store_cannot_be_linked_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with truba.open(tmp_path / "data", kinds=[kind()]) as pipe:
        monkeypatch.setattr(RocksStore, "export", full)
        with pytest.raises(truba.TrubaError, match=r"no backup was made in .*No space left"):
            await pipe.backup(tmp_path / "backup")
        monkeypatch.undo()
        await pipe.backup(tmp_path / "backup")
