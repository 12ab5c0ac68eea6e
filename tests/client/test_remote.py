"""`truba.connect` over real sockets: connections cut at every byte, refusals, cancellation, time, the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import truba
from tests.client.conftest import KIND
from tests.client.peers import RealPipe, Served, proxy
from tests.client.scripted import Scripted, pleased
from truba.client import link, remote
from truba.client.admin import Admin
from truba.client.answers import Answers
from truba.client.remote import RemotePipe

TOKEN = b"a token of sixteen bytes or more"
MakePipe = Callable[..., RealPipe]


async def dialogue(pipe: RemotePipe, name: bytes, told: dict[bytes, str]) -> None:
    """NEW, APPEND, REPLACE, APPEND, DELETE; what was said of each."""
    session = None
    for mark in (b"new", b"append", b"replace", b"again", b"DELETE"):
        record = name + b" " + mark
        try:
            match mark:
                case b"new":
                    session = await pipe.new(7, record)
                case b"replace":
                    assert session is not None
                    await session.replace(record)
                case b"DELETE":
                    assert session is not None
                    await session.delete()
                case _:
                    assert session is not None
                    await session.append(record)
            told[record] = "happened"
        except truba.OperationError as error:
            told[record] = error.happened
            if session is None:
                return


async def run_cut(cuts: list[tuple[int | None, int | None]]) -> Served:
    served = Served(cuts)
    told: dict[bytes, str] = {}
    async with served.running() as url, truba.connect(url, token=TOKEN, connect_timeout_s=10) as pipe:
        await asyncio.wait_for(asyncio.gather(*(dialogue(pipe, b"%d" % n, told) for n in range(3))), 10)
    assert set(told.values()) == {"happened"}, told  # within the grace nothing need be unknown
    assert len(told) == 15
    logs = sorted(job.log for job in served.pipe.jobs)
    assert logs == [[b"%d " % n + mark for mark in (b"new", b"append", b"replace", b"again")] + [b"DELETE"]
                    for n in range(3)]  # fmt: skip
    return served


@pytest.mark.usefixtures("redial_at_once")
@pytest.mark.parametrize("side", ["requests", "answers"])
async def test_a_connection_cut_at_every_byte_loses_and_doubles_nothing(side: str) -> None:
    cut_at = 1
    while True:
        served = await run_cut([(cut_at, None) if side == "requests" else (None, cut_at)])
        if served.connections == 1:
            break
        cut_at += 1 if side == "answers" else 3
    assert cut_at > 80


@pytest.mark.usefixtures("redial_at_once")
async def test_connections_cut_again_and_again() -> None:
    connections = 0
    for at in range(90, 400, 7):
        served = await run_cut([(at + 11 * n, None) if n % 2 else (None, at // 3 + n) for n in range(4)])
        connections += served.connections
    assert connections > 100


@pytest.mark.usefixtures("redial_at_once")
async def test_200_sessions_through_a_proxy_that_cuts(pipe_process: MakePipe) -> None:
    served = pipe_process()
    ids: dict[truba.Index, list[bytes]] = {}
    unsure: list[Exception] = []

    async def job(pipe: RemotePipe, n: int) -> None:
        try:
            session = await pipe.new(7, b"%d" % n)
        except truba.OperationError as error:
            unsure.append(error)
            return
        records = ids[session.id] = [b"%d" % n]
        for step in range(5):
            await session.append(b"%d.%d" % (n, step))
            records.append(b"%d.%d" % (n, step))
        if n % 2:
            await session.delete()
            del ids[session.id]

    async with (
        proxy(served.listen, seed=1, span=40_000) as (url, stop),
        Admin.over(served.url) as admin,
        truba.connect(url, grace_s=20) as pipe,
    ):
        await asyncio.wait_for(asyncio.gather(*(job(pipe, n) for n in range(200))), 60)
        assert stop() > 3
        assert not unsure
        there = {info.id: list((await admin.show(info.id))[1]) async for info in admin.ls()}
        assert there == ids


@pytest.mark.usefixtures("redial_at_once")
async def test_kill_9_and_restart_of_the_pipe_under_the_client(pipe_process: MakePipe) -> None:
    served = pipe_process()
    acknowledged: dict[truba.Index, list[bytes]] = {}
    deleted = 0
    running = True

    async def worker(pipe: RemotePipe, n: int) -> None:
        nonlocal deleted
        count = 0
        while running:
            session = await pipe.new(7, b"new %d" % n)
            records = acknowledged[session.id] = [b"new %d" % n]
            for _ in range(4):
                await asyncio.sleep(0.001)
                count += 1
                await session.append(b"%d %d" % (n, count))
                records.append(b"%d %d" % (n, count))
            if count % 8:
                await session.delete()
                del acknowledged[session.id]
                deleted += 1

    async with truba.connect(served.url, grace_s=20) as pipe:
        workers = [asyncio.create_task(worker(pipe, n)) for n in range(16)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(served.kill)
            await asyncio.to_thread(served.start)
        await asyncio.sleep(0.3)
        running = False
        await asyncio.wait_for(asyncio.gather(*workers), 30)
        async with Admin.over(served.url) as admin:
            there = {info.id: list((await admin.show(info.id))[1]) async for info in admin.ls()}
        assert there == acknowledged
        assert deleted > 16


async def test_refusals_of_a_real_pipe(pipe_process: MakePipe, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("open sesame\n")
    (tmp_path / "password").chmod(0o600)
    node = f'[node]\npassword_file = "{tmp_path / "password"}"\nunix = "{tmp_path / "socket"}"\ngrace_max = "1m"\n'
    served = pipe_process(node + KIND)
    with pytest.raises(truba.NoAuth):
        await truba.connect(served.url)
    with pytest.raises(truba.NoAuth):
        await truba.connect(served.url, password="wrong")
    with pytest.raises(truba.BadRequest, match="a token has 16 to 64 bytes"):
        await truba.connect(served.url, password="open sesame", token=b"short")
    with pytest.raises(truba.BadRequest, match="GRACE is at most 60 s"):
        await truba.connect(served.url, password="open sesame", grace_s=61)
    url = served.url.replace("truba://", "truba://me:open%20sesame@")
    async with (
        truba.connect(["truba://127.0.0.1:1", url]) as pipe,
        truba.connect(f"unix://{tmp_path / 'socket'}", password="open sesame") as other,
    ):
        with pytest.raises(truba.UnknownKind):
            await pipe.new(8)
        session = await pipe.new(7)
        with pytest.raises(truba.TooBig):
            await session.append(b"x" * (2 << 20))
        await session.append(b"x")
        with pytest.raises(truba.OperationError) as caught:
            await session.append(b"x" * (80 << 20))
        assert caught.value.happened == "no"
        await session.append(b"y")
        with pytest.raises(truba.BadRequest):
            await session.append()
        with pytest.raises(TypeError):
            await session.append("text")  # type: ignore[arg-type]
        with pytest.raises(truba.Fenced):
            await other.request(b"DELETE", str(session.id).encode())
        with pytest.raises(truba.Busy, match="is in use"):
            await pipe.new(7, tag=session.tag)
        await session.delete()
        with pytest.raises(truba.Closed):
            await session.delete()


async def taken_away(admin: Admin, session: truba.Session) -> None:
    while (await admin.show(session.id))[0].phase is truba.Phase.ACTIVE:  # noqa: ASYNC110 - only asking tells
        await asyncio.sleep(0.05)


async def test_an_idle_session_taken_away_is_fenced(pipe_process: MakePipe) -> None:
    served = pipe_process(KIND + 'idle_timeout = "100ms"\nrecovery_delay = "1h"\n')
    async with truba.connect(served.url, grace_s=0.2) as pipe, Admin.over(served.url) as admin:
        session = await pipe.new(7, b"a")
        await taken_away(admin, session)
        with pytest.raises(truba.Fenced):
            await session.append(b"b")
        assert session.ended

        async def block() -> None:
            async with pipe.session(7, b"a") as session:
                await taken_away(admin, session)
                with contextlib.suppress(truba.Fenced):
                    await session.append(b"b")

        with pytest.raises(truba.Fenced):  # whoever leaves the block must hear of it
            await block()


async def test_a_restarted_client_finds_its_sessions(pipe_process: MakePipe) -> None:
    served = pipe_process()
    first = await truba.connect(served.url, token=TOKEN)
    session = await first.new(7, b"a", tag=5)
    await session.append(b"b")
    await first.close()
    async with truba.connect(served.url, token=TOKEN) as second:
        found = second.held[5]
        assert (found.id, found.operations, found.kind) == (session.id, 1, 7)
        with pytest.raises(truba.Busy):
            await second.new(7, tag=5)
        await found.append(b"c")
        async with Admin.over(served.url) as admin:
            assert list((await admin.show(found.id))[1]) == [b"a", b"b", b"c"]
        await found.delete()


async def test_while_the_pipe_is_away_calls_end_after_their_time(pipe_process: MakePipe) -> None:
    served = pipe_process()
    async with truba.connect(served.url, timeout_s=0.5, grace_s=20) as pipe:
        session = await pipe.new(7, b"a")
        await asyncio.to_thread(served.kill)
        error: truba.OperationError | None = None
        while not isinstance(error, truba.Unavailable):  # the first may have left before the break was noticed
            try:
                await asyncio.wait_for(session.append(b"b"), 5)
            except truba.OperationError as refusal:
                error = refusal
        results = await asyncio.wait_for(
            asyncio.gather(session.append(b"c"), session.append(b"d"), pipe.new(7), return_exceptions=True), 5
        )
        assert all(isinstance(result, truba.OperationError) for result in results)
        await asyncio.to_thread(served.start)
        async with asyncio.timeout(10):
            while not session.ended:
                with contextlib.suppress(truba.Unavailable):
                    await session.delete()


async def test_a_peer_that_says_nothing_is_left() -> None:
    served = Served()
    async with served.running() as url, truba.connect(url, timeout_s=0.4, grace_s=0.4) as pipe:
        session = await pipe.new(7, b"a")
        answer = served.answer
        served.answer = lambda request: b"" if request[0] == b"APPEND" else answer(request)  # type: ignore[method-assign]
        with pytest.raises(truba.OperationError):
            await asyncio.wait_for(session.append(b"b"), 5)
        assert served.connections > 1


async def test_a_pipe_that_is_telling_very_many_sessions_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A take-over begun anew would never end; and the list may be larger than any other answer."""
    monkeypatch.setattr(remote, "DIAL_S_MAX", 0.25)
    monkeypatch.setattr(link, "Answers", lambda: Answers(4096))
    pieces = 12

    def answer(request: list[bytes]) -> bytes | None:
        if request[0] != b"OWNER":
            return pleased(request)
        sessions = [
            b"*4\r\n$%d\r\n1-%d\r\n:7\r\n:%d\r\n:0\r\n" % (len(b"1-%d" % n), n, n) for n in range(1, pieces * 5)
        ]
        said = b"*%d\r\n%b$-1\r\n" % (len(sessions) + 1, b"".join(sessions))
        each = len(said) // pieces
        (peer,) = script.transports
        for at in range(pieces + 1):
            asyncio.get_running_loop().call_later(at * 0.05, peer.write, said[at * each : (at + 1) * each])
        return None

    async with Scripted(answer) as script, truba.connect(script.url, token=TOKEN) as pipe:
        assert script.connections == 1
        assert [*pipe.held] == [*range(1, pieces * 5)]


async def test_who_loses_its_name_while_it_is_told_what_it_holds_hears_of_that() -> None:
    def answer(request: list[bytes]) -> bytes | None:
        return b"*3\r\n$-1\r\n-FENCED a newer one\r\n$-1\r\n" if request[0] == b"OWNER" else pleased(request)

    async with Scripted(answer) as script:
        with pytest.raises(truba.Fenced, match="a newer one"):
            await truba.connect(script.url, token=TOKEN)


async def test_a_pipe_that_stops_telling_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "DIAL_S_MAX", 0.05)

    def answer(request: list[bytes]) -> bytes | None:
        return b"*2\r\n*4\r\n" if request[0] == b"OWNER" and script.connections < 3 else pleased(request)

    async with Scripted(answer) as script, truba.connect(script.url, token=TOKEN):
        assert script.connections == 3


@pytest.mark.parametrize("turns", range(6))
async def test_cancellation_at_any_point_leaves_the_rest_in_order(turns: int) -> None:
    served = Served()
    async with served.running() as url, truba.connect(url) as pipe:
        other = await pipe.new(7, b"other")
        session = await pipe.new(7, b"a")
        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(coroutine)  # type: ignore[arg-type]
            for coroutine in (session.append(b"b"), session.append(b"c"), pipe.new(7, b"n"))
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(asyncio.gather(session.append(b"d"), other.append(b"e")), 5)
        async with asyncio.timeout(5):
            while not pipe._calls.idle:  # noqa: ASYNC110, SLF001 - nothing else shows it
                await asyncio.sleep(0.001)
        logs = {job.log[0]: job.log for job in served.pipe.jobs}
        assert logs[b"a"] in ([b"a", b"b", b"c", b"d"], [b"a", b"d"], [b"a", b"b", b"d"])
        assert logs[b"other"] == [b"other", b"e"]
        assert logs.get(b"n") in (None, [b"n", b"FAIL"])
        await session.delete()


async def test_close_while_things_are_under_way_and_while_away() -> None:
    served = Served()
    async with served.running() as url:
        pipe = await truba.connect(url)
        session = await pipe.new(7)
        calls = [asyncio.create_task(session.append(b"%d" % n)) for n in range(3)]
        await asyncio.sleep(0)
        await asyncio.gather(pipe.close(), pipe.close())
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert all(isinstance(result, truba.OperationError) for result in results)
        with pytest.raises(truba.Unavailable, match="closed"):
            await pipe.new(7)
        pipe = await truba.connect(url)
        session = await pipe.new(7)
        served.refusals[b"OWNER"] = b"-UNAVAILABLE not now\r\n"
        served.refusals[b"APPEND"] = b"$garbage\r\n"
        call = asyncio.create_task(session.append(b"x"))
        await asyncio.sleep(0.1)
        await pipe.close()
        with pytest.raises(truba.UnknownOutcome):
            await asyncio.wait_for(call, 5)


async def test_a_cancel_while_closing_is_not_lost() -> None:
    served = Served([])
    async with served.running() as url:
        pipe = await truba.connect(url)
        closing = asyncio.create_task(pipe.close())
        await asyncio.sleep(0)  # it waits for the keeper of the connection now
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await pipe.close()


async def test_a_refused_name_ends_the_client_with_that_error() -> None:
    served = Served([(None, 200)])
    async with served.running() as url, truba.connect(url) as pipe:
        served.refusals[b"OWNER"] = b"-NOPERM not you\r\n"
        error: truba.OperationError | None = None
        async with asyncio.timeout(5):
            while not isinstance(error, truba.NoPerm):
                try:
                    await pipe.new(7, b"x")
                except truba.OperationError as refusal:
                    error = refusal


async def test_block_of_a_session() -> None:
    served = Served()
    async with served.running() as url, truba.connect(url) as pipe:
        async with pipe.session(7, b"done"):
            pass
        with pytest.raises(ZeroDivisionError):
            async with pipe.session(7, b"failed"):
                raise ZeroDivisionError
        async with pipe.session(7, b"stored") as session:
            await session.store(3)

        async def cancelled() -> None:
            async with pipe.session(7, b"cancelled"):
                await asyncio.sleep(60)

        task = asyncio.create_task(cancelled())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [job.log for job in served.pipe.jobs] == [
            [b"done", b"DELETE"], [b"failed", b"FAIL"], [b"stored", b"STORE"], [b"cancelled", b"FAIL"],
        ]  # fmt: skip


def test_addresses() -> None:
    for url in ("http://x", "truba://", "truba://x/path", "unix://host/path", "truba://x:99999", []):
        with pytest.raises(truba.ConfigError):
            truba.connect(url)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".example.com"])
def test_a_host_that_is_no_name_is_told_at_once(host: str) -> None:
    with pytest.raises(truba.ConfigError, match="is no address of a pipe"):
        truba.connect(f"trubas://{host}:7433")


async def test_a_node_that_names_a_leader_by_no_name_ends_no_client(redial_at_once: None) -> None:
    named = b"a..b:7433"

    def answer(request: list[bytes]) -> bytes:
        if request[0] == b"LEADER" and script.connections == 2:
            return b"$%d\r\n%b\r\n" % (len(named), named)
        return pleased(request)

    async with Scripted(answer) as script, truba.connect(script.url, token=TOKEN, insecure=True) as pipe:
        script.cut()
        await asyncio.wait_for(pipe.new(7, b"a"), 5)
        assert script.connections == 3


async def test_a_connection_to_itself_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What dialling a port of the ephemeral range ends in, once in some thousand times, while nobody listens."""
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def from_that_very_port(make: Callable[[], asyncio.Protocol], host: str, port: int) -> object:
        return await connect(make, host, port, local_addr=(host, port))

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(loop, "create_connection", from_that_very_port)
    with pytest.raises(truba.Unavailable, match="nobody listens there"):
        await truba.connect(f"truba://127.0.0.1:{port}", connect_timeout_s=0)


async def test_nobody_there() -> None:
    with pytest.raises(truba.Unavailable, match=r"no pipe at 127\.0\.0\.1:1: .*nothing was sent"):
        await truba.connect("truba://127.0.0.1:1", connect_timeout_s=0.1)
