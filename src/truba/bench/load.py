"""The load over TCP: a process of its own, one socket for each client, no event loop, about 5 us an operation.

Run as `python -m truba.bench.load HOST PORT KIND CLIENTS SECONDS RECORD_BYTES`. Each client does New, three Appends and
Delete, one operation at a time. Every answer is checked; a wrong one ends the run. Prints one JSON document.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from array import array
from dataclasses import asdict

from truba.bench.figures import make_round

OK = b"+OK\r\n"


class WrongAnswerError(Exception):
    """The pipe answered something else than was asked for."""


def run(host: str, port: int, kind: int, clients: int, seconds: float, record_bytes: int) -> dict[str, float]:
    """The figures of one round. OSError, WrongAnswerError."""
    record = b"x" * record_bytes
    new = b"*2\r\n$3\r\nNEW\r\n$%d\r\n%d\r\n" % (len(b"%d" % kind), kind)
    append = b"*3\r\n$6\r\nAPPEND\r\n$%%d\r\n%%b\r\n$%d\r\n%b\r\n" % (record_bytes, record.replace(b"%", b"%%"))
    delete = b"*2\r\n$6\r\nDELETE\r\n$%d\r\n%b\r\n"
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    step: dict[int, int] = {}
    sent_s: dict[int, float] = {}
    appends: dict[int, bytes] = {}
    ids: dict[int, bytes] = {}
    latencies_s = array("d")
    now = time.perf_counter
    for _ in range(clients):
        one = socket.create_connection((host, port), timeout=10)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setblocking(False)
        sockets[one.fileno()] = one
        poll.register(one, select.EPOLLIN)
    cpu_before_s = sum(os.times()[:2])
    started_s = t = now()
    until_s = started_s + seconds
    for fd, one in sockets.items():
        step[fd] = 0
        one.send(new)
        sent_s[fd] = now()
    while t < until_s:
        for fd, _ in poll.poll(10):
            one = sockets[fd]
            answer = one.recv(4096)
            t = now()
            latencies_s.append(t - sent_s[fd])
            at = step[fd]
            if at == 0:
                if answer[:1] != b"$" or not answer.endswith(b"\r\n"):
                    raise WrongAnswerError(f"NEW was answered {answer[:200]!r}")
                session_id = answer[answer.index(b"\n") + 1 : -2]
                ids[fd] = session_id
                request = appends[fd] = append % (len(session_id), session_id)
            elif answer != OK:
                raise WrongAnswerError(f"{('APPEND', 'DELETE')[at == 4]} was answered {answer[:200]!r}")
            elif at < 3:
                request = appends[fd]
            elif at == 3:
                request = delete % (len(ids[fd]), ids[fd])
            else:
                request = new
            step[fd] = at + 1 if at < 4 else 0
            sent_s[fd] = t
            if one.send(request) != len(request):
                raise WrongAnswerError("the pipe does not read what it is sent")
    took_s = now() - started_s
    cpu_s = sum(os.times()[:2]) - cpu_before_s
    for one in sockets.values():
        one.close()
    return asdict(make_round(latencies_s, took_s, cpu_s))


def main(arguments: list[str]) -> int:
    host, port, kind, clients, seconds, record_bytes = arguments
    try:
        figures = run(host, int(port), int(kind), int(clients), float(seconds), int(record_bytes))
    except (OSError, WrongAnswerError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    json.dump(figures, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
