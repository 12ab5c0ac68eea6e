"""A pipe that the system gives no more file descriptors: it stops as at any failure of its log, and blames no disk."""

from __future__ import annotations

import contextlib
import resource

from tests.service.process import Servers, kind
from tests.service.wire import Wire

STOPPED_ITSELF, DATA = 70, 7


def test_it_says_what_was_short_and_what_to_allow(pipes: Servers) -> None:
    server = pipes.start(kind(recovery_delay="1h"), node='segment = "1MiB"')
    stored: list[str] = []
    with Wire.dial(server.address) as client:
        client.ask(b"PING")
        # No number is left at all: any that is free below the limit just now would be given to the next segment, and
        # that one's, once closed, to the one after it.
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (0, 0))
        with contextlib.suppress(ConnectionError):
            for _ in range(60):
                number = client.ask(b"NEW", b"7", bytes(100_000)).decode()
                client.ask(b"STORE", number, b"3600")
                stored.append(number)
    assert server.wait() == STOPPED_ITSELF
    stopped = server.logged[-1]
    assert "Too many open files" in stopped["error"]
    assert "no file descriptor was left, the disk is not to blame" in stopped["next"]
    assert "LimitNOFILE=" in stopped["next"]
    with Wire.dial(pipes.start_again(server.config).address) as client:
        for number in stored:
            assert client.ask(b"SHOW", number)
