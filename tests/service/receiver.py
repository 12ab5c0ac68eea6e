"""A receiver of webhooks in threads, for pipes that are processes: notes what comes, answers as it is told."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

PATIENCE_S = 30.0


class Post(NamedTuple):
    headers: dict[str, str]
    body: bytes


class Receiver(ThreadingHTTPServer):
    """`posts` has each POST once it was read; its answer is what `always` says, or the next of `answers`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts: queue.Queue[Post] = queue.Queue()
        self.answers: queue.Queue[tuple[int, bytes]] = queue.Queue()
        self.errors: list[BaseException | None] = []
        self.always: tuple[int, bytes] | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection of a pipe that was killed is no error; anything else is."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.errors.append(error)

    def next(self) -> Post:
        return self.posts.get(timeout=PATIENCE_S)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/unfinished"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True  # the pipe was killed while it sent
            return
        self.server.posts.put(Post(dict(self.headers), body))
        status, said = self.server.always or self.server.answers.get()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)
        except ConnectionError:
            self.close_connection = True  # the pipe was killed

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()
        assert not receiver.errors
