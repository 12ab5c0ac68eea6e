"""A pipe as a process that is stopped for longer than its owners' grace, and one whose wall clock is set."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.process import Server, Servers, kind, servers
from tests.service.wire import Listener, Refused, Wire, request, until

GRACE_S = 1
TOKEN = b"a token of sixteen bytes or more"
HOUR_MS = 3_600_000


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Servers]:
    yield from servers(tmp_path)


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stopped by the kernel, which is waited for."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0], "T".__eq__)
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def outcome(wire: Wire, *words: bytes | str | int) -> object:
    return wire.asked([request(*words)])[0]


def test_g3_a_pipe_frozen_for_longer_than_the_grace_lets_one_owner_write(pipes: Servers) -> None:
    """Who comes back at the moment of the thaw has the session, or the handler gets it: never both."""
    with Listener() as listener:
        server = pipes.start(kind(handler=listener.url))
        with Wire.dial(server.address) as present, Wire.dial(server.address) as gone, Wire.dial(server.address) as back:
            handler = listener.serve(7)
            assert present.ask("OWNER", TOKEN + b"2", "GRACE", GRACE_S) == []
            kept = present.ask("NEW", 7, "kept")
            assert gone.ask("OWNER", TOKEN, "GRACE", GRACE_S) == []
            left = gone.ask("NEW", 7, "left")
            gone.close()
            with frozen(server):
                back.send(request("OWNER", TOKEN, "GRACE", GRACE_S) + request("APPEND", left, "back"))
                present.send(request("APPEND", kept, "meanwhile"))
                time.sleep(1.5 * GRACE_S)  # the freeze itself: nothing can be waited for in it
            assert present.answer() == b"OK"  # it was there all the time
            held, appended = back.answer(), back.outcome()
            if held:
                assert appended == b"OK"
                assert back.ask("DELETE", left) == b"OK"
            else:
                assert isinstance(appended, Refused)
                assert appended.code in ("FENCED", "NOSESSION")
                pushed = handler.push()
                assert (pushed[1].partition(b"@")[0], pushed[7:]) == (left, [b"left"])
                assert handler.ask("DELETE", left) == b"OK"
            for wire in (back, handler):
                after = outcome(wire, "APPEND", left, "late")
                assert isinstance(after, Refused)
                assert after.code in ("CLOSED", "NOSESSION", "FENCED")
            assert present.ask("DELETE", kept) == b"OK"
        assert server.terminate() == 0


def test_g3_g4_a_freeze_longer_than_the_handler_may_take(pipes: Servers) -> None:
    """What fell due meanwhile is handed over once; what the handler said meanwhile is done, or fenced: never twice."""
    with Listener() as listener:
        server = pipes.start(kind(handler=listener.url, handler_timeout="1s", backoff={"base": "0s", "cap": "0s"}))
        with Wire.dial(server.address) as client:
            handler = listener.serve(7)
            held = client.ask("NEW", 7, "held")
            assert client.ask("STORE", held, 0) == b"OK"
            assert handler.push()[1:3] == [held, 1]
            due = client.ask("NEW", 7, "due")
            stored_s = time.time()
            assert client.ask("STORE", due, 1) == b"OK"
            with frozen(server):
                handler.send(request("DELETE", held))
                time.sleep(1.5)
            done = handler.outcome()
            missing = {due: 0}  # the epoch at which each was handed over last
            if isinstance(done, Refused):
                assert done.code == "FENCED"
                missing[held] = 1
            while missing:
                what, session, epoch, *_ = handler.push()
                if what == b"lost":
                    continue
                assert session in missing, "handed over again after its Delete"
                assert epoch > missing[session], "handed over twice with one epoch"
                assert session == held or time.time() - stored_s >= 1, "handed over early"
                missing[session] = epoch
                ended = outcome(handler, "DELETE", b"%b@%d" % (session, epoch))
                if ended == b"OK":
                    del missing[session]
                else:  # a machine so slow that this hand-over was late too
                    assert isinstance(ended, Refused)
                    assert ended.code == "FENCED"
            assert not client.ask("LS")[1]
        assert server.terminate() == 0


def test_g4_a_wall_clock_set_ahead_or_back_brings_nothing_early_and_loses_nothing(pipes: Servers) -> None:
    ahead = pipes.directory / "ahead"

    def jump(milliseconds: int) -> None:
        young = ahead.with_suffix(".young")
        young.write_text(str(milliseconds))
        os.replace(young, ahead)  # noqa: PTH105 - the name says that the old one is replaced

    jump(0)
    hook = f'[[node.frontends]]\nfactory = "tests.clocks.shifting:Shifting"\noptions = {{ ahead = "{ahead}" }}\n'
    with Listener() as listener:
        server = pipes.start(hook + kind(handler=listener.url))
        with Wire.dial(server.address) as client:
            handler = listener.serve(7)
            assert client.ask("OWNER", TOKEN, "GRACE", 60) == []
            open_, hour, soon = (client.ask("NEW", 7, name) for name in ("open", "hour", "soon"))
            assert client.ask("STORE", hour, 3_600) == b"OK"
            assert client.ask("STORE", soon, 60) == b"OK"
            jump(-HOUR_MS)  # long before `soon` is due
            client.close()
            with Wire.dial(server.address) as client:
                assert handler.quiet(2), handler.pushed
                jump(61_000)
                assert handler.push()[1] == soon
                assert handler.ask("DELETE", soon) == b"OK"
                jump(24 * HOUR_MS)
                assert handler.push()[1] == hour
                assert handler.ask("DELETE", hour) == b"OK"
                # A day passed by the wall clock, not one minute by the clock that counts for grace.
                assert [entry[0] for entry in client.ask("OWNER", TOKEN, "GRACE", 60)] == [open_]
                assert client.ask("DELETE", open_) == b"OK"
                assert handler.quiet(0.1), handler.pushed
        assert server.terminate() == 0
