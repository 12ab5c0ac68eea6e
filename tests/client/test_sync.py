"""The synchronous twin: threads, errors, interrupts, and processes that end without closing."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import truba
from tests.client.peers import RealPipe
from truba.backup.verify import verify
from truba.client.remote import RemotePipe, RemoteSession
from truba.embedded import EmbeddedPipe
from truba.records import Json
from truba.session import Session

MakePipe = Callable[..., RealPipe]


def test_many_threads_over_one_connection(pipe_process: MakePipe) -> None:
    def job(n: int) -> None:
        with pipe.session(7, b"%d" % n) as session:
            for step in range(10):
                session.append(b"%d" % step)
        with pytest.raises(truba.Closed):
            session.append(b"late")

    with truba.sync.connect(pipe_process().url) as pipe, ThreadPoolExecutor(16) as pool:
        list(pool.map(job, range(64)))


def test_embedded(tmp_path: Path) -> None:
    finished = threading.Event()

    def finish(repeat: truba.sync.RepeatData) -> None:
        assert list(repeat.records) == [b"a"]
        repeat.session.append(b"b")
        finished.set()

    def failing() -> None:
        with pipe.session(7, b"a"):
            raise ZeroDivisionError

    kind = truba.Kind(7, "transfer", handler=finish, recovery_delay_s=0, jitter_s=0)
    with truba.sync.open(tmp_path, kinds=[kind]) as pipe:
        with pytest.raises(ZeroDivisionError):
            failing()
        assert finished.wait(5)
        session = pipe.new(7)
        session.touch()
        session.replace(b"x")
        session.store(60)
        assert session.ended
    pipe.close()  # again, harmless
    with pytest.raises(truba.Unavailable, match="closed"):
        pipe.new(7)
    with pytest.raises(truba.Unavailable, match="closed"):
        session.append(b"")


def test_what_an_earlier_client_left_is_held(pipe_process: MakePipe) -> None:
    url, token = pipe_process().url, b"a secret of sixteen"
    with truba.sync.connect(url, token=token) as before:
        assert not before.held
        opened = before.new(7, b"debit", tag=5)
        opened.append(b"debited")
        typed = before.new(7, tag=6, codec=Json())
        assert isinstance(typed.plain, truba.sync.RemoteSession)
        typed.append({"sum": 3})
    with truba.sync.connect(url, token=token) as pipe:
        assert pipe.held.keys() == {5, 6}
        session = pipe.held[5]
        assert (session.id, session.tag, session.operations) == (opened.id, 5, 1)
        session.append(b"credited")
        assert session.operations == 2
        assert pipe.request(b"PING", read=True) == b"PONG"
        for left in pipe.held.values():
            left.delete()


def test_a_backup(tmp_path: Path) -> None:
    def finish(repeat: truba.sync.RepeatData) -> None:
        raise AssertionError("nothing is due")

    kind = truba.Kind(7, "transfer", handler=finish, recovery_delay_s=1000)
    with truba.sync.open(tmp_path / "data", kinds=[kind]) as pipe:
        session = pipe.new(7, b"before")
        made = pipe.backup(tmp_path / "backup")
        assert made.at >= session.id
        with pytest.raises(truba.TrubaError, match="not empty"):
            pipe.backup(tmp_path / "backup")
    assert verify(tmp_path / "backup").sound


@pytest.mark.parametrize(
    ("plain", "awaited"),
    [
        (truba.sync.RemotePipe, RemotePipe),
        (truba.sync.EmbeddedPipe, EmbeddedPipe),
        (truba.sync.RemoteSession, RemoteSession),
        (truba.sync.Session, Session),
        (truba.sync.TypedSession, truba.TypedSession),
    ],
)
def test_the_twin_has_the_same_names(plain: type, awaited: type) -> None:
    def names(one: type) -> set[str]:
        return {name for name in dir(one) if not name.startswith("_")}

    # `open` is how `connect` begins, `hold` and `codec` are for what is built on a session.
    assert names(awaited) - names(plain) <= {"open", "hold", "codec"}


def test_errors_come_as_they_are(tmp_path: Path, pipe_process: MakePipe) -> None:
    with pytest.raises(truba.ConfigError):
        truba.sync.connect("http://x")
    with pytest.raises(truba.Unavailable):
        truba.sync.connect("truba://127.0.0.1:1", connect_timeout_s=0)
    with truba.sync.connect(pipe_process().url) as pipe, pytest.raises(truba.UnknownKind):
        pipe.new(8)
    assert not [thread for thread in threading.enumerate() if thread.name == "truba-sync"]


def test_closing_ends_the_calls_of_other_threads(pipe_process: MakePipe) -> None:
    served = pipe_process()
    pipe = truba.sync.connect(served.url)
    session = pipe.new(7)
    served.kill()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(session.append, b"x") for _ in range(4)]
        with pytest.raises(TimeoutError):
            calls[0].result(0.2)
        pipe.close()
        assert all(isinstance(call.exception(5), truba.OperationError) for call in calls)


SCRIPT = """
import sys, truba
pipe = truba.sync.connect(sys.argv[1])
session = pipe.new(7, b"a")
print("ready", flush=True)
{rest}
"""


def script(url: str, rest: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(rest=rest), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_process_that_does_not_close_still_ends(pipe_process: MakePipe) -> None:
    process = script(pipe_process().url, "")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "ready\n", "")


def test_an_interrupt_ends_a_call_that_waits_for_a_pipe_that_is_away(pipe_process: MakePipe) -> None:
    served = pipe_process()
    process = script(served.url, "with pipe:\n    sys.stdin.readline()\n    session.append(b'x')")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    served.kill()
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err


def test_a_call_that_ends_as_its_waiter_looks_around_has_ended_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Future[object]):
        """Is done a moment after whoever waited has had enough."""

        def result(self, timeout: float | None = None) -> object:
            if timeout is None or self.done():
                return super().result(timeout)
            super().result(10)
            raise TimeoutError

    async def late() -> None:
        raise TimeoutError("the coroutine's own")

    with truba.sync.open(tmp_path, kinds=[truba.Kind(7, "transfer", handler=print)]) as pipe:
        monkeypatch.setattr(concurrent.futures, "Future", Late)
        session = pipe.new(7, b"a")
        session.append(b"b")
        with pytest.raises(TimeoutError, match="own"):
            truba.sync._wait(late(), session.home)  # noqa: SLF001


def test_the_child_of_a_fork_is_told_to_open_its_own(pipe_process: MakePipe) -> None:
    with truba.sync.connect(pipe_process().url) as pipe:
        session = pipe.new(7)
        child = os.fork()
        if child == 0:
            try:
                session.append(b"x")
            except truba.Unavailable as error:
                pipe.close()  # not ours: nothing happens
                os._exit(0 if "fork" in str(error) else 2)
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        session.append(b"y")


def test_a_plain_call_on_the_own_loop_is_refused(tmp_path: Path) -> None:
    raised: list[BaseException] = []
    told = threading.Event()

    async def finish(repeat: truba.RepeatData) -> None:
        try:
            pipe.new(7)
        except truba.BadRequest as error:
            raised.append(error)
        told.set()

    with truba.sync.open(tmp_path / "data", kinds=[truba.Kind(7, "seven", finish)]) as pipe:
        pipe.new(7, b"r").store(0)
        assert told.wait(10)
    assert "wait for itself" in str(raised[0])
