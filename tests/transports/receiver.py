"""A receiver of webhooks made of a bare socket, so that it can misbehave at any byte; and a pipe that posts to it."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import truba
from truba.webhook import Unfinished, Webhook, verify

SECRET = "whsec_" + base64.b64encode(b"a key for these tests, and none else").decode()


@dataclass
class Post:
    """A whole POST as it came, and its connection."""

    head: str
    headers: dict[str, str]
    body: bytes
    connection: int
    writer: asyncio.StreamWriter

    @property
    def unfinished(self) -> Unfinished:
        """What it says, verified against the clock of now."""
        found = verify(self.headers, self.body, SECRET)
        assert isinstance(found, Unfinished)
        return found


Script = bytes | Callable[[Post], Awaitable[object]]
"""What is answered to one POST: bytes, after which the connection stays open, or what a function does with it."""


def http(status: int, body: bytes = b"", *headers: str, content_type: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    if body:
        lines.append(f"Content-Type: {content_type}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Receiver:
    """Answers the n-th POST by the n-th script, later ones with 204."""

    scripts: list[Script]
    on_connect: list[Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]] = field(
        default_factory=list
    )
    posts: list[Post] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    at_once_max: int = 0
    port: int = 0
    errors: list[BaseException] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            if number <= len(self.on_connect):
                await self.on_connect[number - 1](reader, writer)
                return
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                first, *lines = head.split("\r\n")[:-2]
                headers = dict(line.split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers["Content-Length"]))
                post = Post(first, headers, body, number, writer)
                self.posts.append(post)
                script = self.scripts.pop(0) if self.scripts else NO_CONTENT
                self.at_once += 1
                self.at_once_max = max(self.at_once, self.at_once_max)
                try:
                    if isinstance(script, bytes):
                        writer.write(script)
                        await writer.drain()
                    else:
                        await script(post)
                finally:
                    self.at_once -= 1
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the pipe hung up
        except Exception as error:
            self.errors.append(error)
        finally:
            writer.close()


@asynccontextmanager
async def receiving(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(scripts))
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(receiver.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        assert not receiver.errors


class Told:
    """What the node told operators."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def __call__(self, event: str, /, **fields: object) -> None:
        self.lines.append((event, fields))

    def details(self, event: str = "hand-over failed") -> list[str]:
        return [str(fields["detail"]) for told, fields in self.lines if told == event]


def kind(webhook: Webhook, number: int = 7, **policy: Any) -> truba.Kind:
    defaults: dict[str, Any] = {"recovery_delay_s": 0, "jitter_s": 0, "backoff": truba.Backoff(0, 1, 0)}
    return truba.Kind(number, f"kind-{number}", webhook, **defaults | policy)


def webhook(receiver: Receiver, **options: Any) -> Webhook:
    return Webhook(f"http://127.0.0.1:{receiver.port}/unfinished", SECRET, **options)


@asynccontextmanager
async def piped(path: Path, *kinds: truba.Kind) -> AsyncIterator[tuple[truba.EmbeddedPipe, Told]]:  # type: ignore[name-defined]
    told = Told()
    async with truba.open(path / "data", kinds=kinds) as pipe:
        pipe.node.tell = told
        yield pipe, told
