"""`serve_handlers` against a pipe played over a real socket, and against a real pipe."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis
import pytest

import truba
from tests.client.peers import RealPipe
from tests.client.test_hello import hello
from truba.client.handlers import HandlerServer


class PlayedPipe:
    """Dials a handler service and says what the test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.parser = hiredis.Reader()

    @classmethod
    async def dial(cls, server: HandlerServer, secret: bytes | None = b"") -> PlayedPipe:
        host, port = server.address.rsplit(":", 1)
        pipe = cls(*await asyncio.open_connection(host, int(port)))
        if secret is not None:
            pipe.writer.write(hello(secret))
        return pipe

    async def heard(self) -> list[bytes] | None:
        """The next request; None: hung up."""
        async with asyncio.timeout(5):
            while (request := self.parser.gets()) is False:
                try:
                    data = await self.reader.read(65536)
                except ConnectionResetError:
                    return None
                if not data:
                    return None
                self.parser.feed(data)
        return request

    async def expect(self, *request: bytes, answer: bytes = b"+OK\r\n") -> None:
        assert await self.heard() == list(request)
        self.writer.write(answer)

    def repeat(self, seq: int, *records: bytes, kind: int = 7, epoch: int = 1) -> None:
        words = [b"repeat", b"1-%d" % seq, epoch, kind, 1, 60_000, b"lost", *records]
        out = [b">%d\r\n" % len(words)]
        out += [b":%d\r\n" % word if isinstance(word, int) else b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        self.writer.write(b"".join(out))

    def lost(self, seq: int) -> None:
        self.writer.write(b">4\r\n$4\r\nlost\r\n$%d\r\n1-%d\r\n:1\r\n$4\r\nlate\r\n" % (len(b"1-%d" % seq), seq))

    async def hang_up(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


Handle = Callable[[truba.RepeatData], Awaitable[Any]]


@contextlib.asynccontextmanager
async def served(handle: Any, **options: Any) -> Any:
    """A service, a played pipe that it knows, and its troubles."""
    troubles: list[str] = []
    async with truba.serve_handlers({7: handle}, "127.0.0.1:0", **options) as server:
        server.on_trouble = lambda what, error: troubles.append(f"{what}: {error!r}")
        pipe = await PlayedPipe.dial(server, options.get("secret", "").encode())
        if "password" in options:
            await pipe.expect(b"AUTH", b"default", options["password"].encode())
        await pipe.expect(b"KINDS", b"7", b"CREDIT", b"%d" % options.get("credit", 64))
        yield server, pipe, troubles
        await pipe.hang_up()


async def nothing(repeat: truba.RepeatData) -> None:
    pass


async def test_returning_deletes_and_raising_gives_back() -> None:
    async def handle(repeat: truba.RepeatData) -> None:
        assert (repeat.kind, repeat.attempt, repeat.cause, repeat.session.epoch) == (7, 1, truba.Cause.LOST, 1)
        await repeat.session.append(*repeat.records)
        if repeat.records[0] == b"bad":
            raise ValueError("no good")
        if repeat.records[0] == b"store":
            await repeat.session.store(2)

    async with served(handle, password="sesame", secret="$\r\n odd") as (server, pipe, troubles):
        pipe.repeat(3, b"good", b"two")
        await pipe.expect(b"APPEND", b"1-3@1", b"good", b"two")
        await pipe.expect(b"DELETE", b"1-3@1")
        pipe.repeat(4, b"bad")
        await pipe.expect(b"APPEND", b"1-4@1", b"bad")
        await pipe.expect(b"FAIL", b"1-4@1", b"ValueError: no good")
        pipe.repeat(5, b"store")
        await pipe.expect(b"APPEND", b"1-5@1", b"store")
        await pipe.expect(b"STORE", b"1-5@1", b"2.000")
        await until(lambda: not server.tasks)
        assert (server.finished, server.failed) == (2, 1)
        assert len(troubles) == 1


class Oddity(BaseException):
    pass


@pytest.mark.parametrize("error", [SystemExit(3), Oddity("odd"), asyncio.CancelledError("own"), TimeoutError()])
async def test_whatever_a_handler_raises_gives_the_session_back(error: BaseException) -> None:
    async def handle(repeat: truba.RepeatData) -> None:
        raise error

    def plain(repeat: Any) -> None:
        raise error

    for one in (handle, plain):
        async with served(one) as (_, pipe, _):
            pipe.repeat(3, b"a")
            said = await pipe.heard()
            assert said[:2] == [b"FAIL", b"1-3@1"]
            pipe.writer.write(b"+OK\r\n")


async def test_lost_and_a_broken_connection_cancel_and_fence() -> None:
    ended: list[str] = []

    async def handle(repeat: truba.RepeatData) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            with contextlib.suppress(truba.Fenced):
                await repeat.session.append(b"late")
                raise AssertionError from None
            ended.append(str(error))
            raise

    async with served(handle) as (server, pipe, _):
        pipe.repeat(3, b"a")
        pipe.repeat(4, b"b")
        await until(lambda: len(server.tasks) == 2)
        await asyncio.sleep(0)  # both have begun
        pipe.lost(3)
        await until(lambda: len(server.tasks) == 1)
        assert ended == ["session 1-3 was taken away: late"]
        await pipe.hang_up()
        await until(lambda: not server.tasks)
        assert ended[1:] == ["session 1-4: the connection to the pipe broke"]


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", b"*1000000000\r\n", hello(b"wrong"), hello(b""), b">4\r\n$5\r\nhello\r\n$999999999\r\n",
     hello(b"right") + b"+OK\r\n" * 9,
     hello(b"right") + b">1\r\n$6\r\nrepeat\r\n"],
)  # fmt: skip
async def test_what_is_no_pipe_is_hung_up(said: bytes) -> None:
    async with truba.serve_handlers({7: nothing}, "127.0.0.1:0", secret="right") as server:
        troubles: list[str] = []
        server.on_trouble = lambda what, error: troubles.append(what)
        pipe = await PlayedPipe.dial(server, None)
        pipe.writer.write(said)
        while await pipe.heard() is not None:
            pass
        await pipe.hang_up()
        assert len(troubles) >= 1


def repeat(seq: int, *records: bytes | int, epoch: bytes = b":1") -> bytes:
    """A push by hand, for what no pipe would send."""
    words = [b":%d" % one if isinstance(one, int) else b"$%d\r\n%b" % (len(one), one) for one in records]
    return b">%d\r\n$6\r\nrepeat\r\n$3\r\n1-%d\r\n%b\r\n:7\r\n:1\r\n:9\r\n$4\r\nlost\r\n%b" % (
        7 + len(words), seq, epoch, b"".join(word + b"\r\n" for word in words))  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        b"*1000000000\r\n", b">1000000000\r\n", b"%500000000\r\n", b"$1000000000\r\n", b"*65536\r\n" * 1_000,
        b"+" + b"x" * 9_999, repeat(3)[:-1] + b"\n" + repeat(3), repeat(3, 5), repeat(3, epoch=b"*0"),
        b"".join(repeat(seq) for seq in range(2, 9)), b">0\r\n", b"+OK\r\n" * 9,
    ],
)  # fmt: skip
async def test_a_pipe_that_is_trusted_is_not_believed(said: bytes) -> None:
    """Without a secret anybody may say hello. Lengths, values and sessions beyond the credit end the connection at
    once, and cost next to nothing."""

    async def hold(held: truba.RepeatData) -> None:
        await asyncio.Event().wait()

    async with truba.serve_handlers({7: hold}, "127.0.0.1:0", credit=3) as server:
        troubles: list[str] = []
        server.on_trouble = lambda what, error: troubles.append(what)
        pipe = await PlayedPipe.dial(server)
        await pipe.expect(b"KINDS", b"7", b"CREDIT", b"3")
        tracemalloc.start()
        try:
            pipe.writer.write(said)
            while await pipe.heard() is not None:
                pass
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await pipe.hang_up()
        assert "what was said is not the protocol of a pipe" in troubles[0]
        assert peak_bytes < 2 << 20
        await until(lambda: not server.tasks)
        other = await PlayedPipe.dial(server)  # and the service goes on
        await other.expect(b"KINDS", b"7", b"CREDIT", b"3")
        await other.hang_up()


async def test_hello_byte_by_byte() -> None:
    async with truba.serve_handlers({7: nothing}, "127.0.0.1:0", secret="s\r\n$1") as server:
        pipe = await PlayedPipe.dial(server, None)
        for byte in hello(b"s\r\n$1"):
            pipe.writer.write(bytes([byte]))
            await pipe.writer.drain()
            await asyncio.sleep(0)
        await pipe.expect(b"KINDS", b"7", b"CREDIT", b"64")
        await pipe.hang_up()


async def test_a_refusal_of_kinds_is_told() -> None:
    async with truba.serve_handlers({7: nothing}, "127.0.0.1:0") as server:
        troubles: list[BaseException | None] = []
        server.on_trouble = lambda what, error: troubles.append(error)
        pipe = await PlayedPipe.dial(server)
        await pipe.expect(b"KINDS", b"7", b"CREDIT", b"64", answer=b"-UNKNOWNKIND no kind 7\r\n")
        assert await pipe.heard() is None
        assert isinstance(troubles[0], truba.UnknownKind)
        await pipe.hang_up()


async def test_closing_takes_nothing_more_and_waits_for_those_at_work() -> None:
    go = asyncio.Event()

    async def handle(repeat: truba.RepeatData) -> None:
        await go.wait()

    async with served(handle) as (server, pipe, _):
        pipe.repeat(3, b"a")
        await until(lambda: bool(server.tasks))
        closing = asyncio.create_task(server.close())
        await pipe.expect(b"KINDS", b"7", b"CREDIT", b"0")
        go.set()
        await pipe.expect(b"DELETE", b"1-3@1")
        assert await pipe.heard() is None
        await asyncio.wait_for(closing, 5)
        assert server.finished == 1


async def test_closing_cancels_who_does_not_finish() -> None:
    async def handle(repeat: truba.RepeatData) -> None:
        await asyncio.sleep(60)

    async with served(handle) as (server, pipe, _):
        pipe.repeat(3, b"a")
        await until(lambda: bool(server.tasks))
        await server.close(0.05)
        assert not server.tasks


async def test_a_thousand_repeats_at_once() -> None:
    async def handle(repeat: truba.RepeatData) -> None:
        await repeat.session.append(b"x")

    async with served(handle, credit=1000) as (_, pipe, _):
        for seq in range(1000):
            pipe.repeat(seq, b"a")
        said: dict[bytes, list[bytes]] = {}
        for _ in range(2000):
            verb, session_id, *_ = await pipe.heard()
            said.setdefault(session_id, []).append(verb)
            pipe.writer.write(b"+OK\r\n")
        assert len(said) == 1000
        assert all(verbs == [b"APPEND", b"DELETE"] for verbs in said.values())


async def test_plain_functions_have_a_thread_each() -> None:
    together = threading.Barrier(40)

    def handle(repeat: truba.sync.RepeatData) -> None:
        together.wait(5)
        repeat.session.append(b"x")

    async with served(handle) as (_, pipe, _):
        for seq in range(40):
            pipe.repeat(seq, b"a")
        verbs = []
        for _ in range(80):
            verbs.append((await pipe.heard())[0])
            pipe.writer.write(b"+OK\r\n")
        assert sorted(verbs) == [b"APPEND"] * 40 + [b"DELETE"] * 40


async def test_with_a_real_pipe(pipe_process: Callable[..., RealPipe]) -> None:
    got: list[tuple[Any, ...]] = []

    async def handle(repeat: truba.RepeatData) -> None:
        got.append((list(repeat.records), repeat.attempt))
        if repeat.attempt == 1:
            raise ValueError("once more")

    async with truba.serve_handlers({7: handle}, "127.0.0.1:0") as server:
        server.on_trouble = lambda what, error: None
        served = pipe_process(
            f'[kinds.transfer]\nnumber = 7\nhandler = "truba://{server.address}"\n'
            'recovery_delay = "0s"\njitter = "0s"\nbackoff = { base = "1ms" }\n'
        )
        async with truba.connect(served.url) as pipe:
            session = await pipe.new(7, b"a", b"b")
            await session.fail("not today")
            await until(lambda: len(got) == 2)
        assert got == [([b"a", b"b"], 1), ([b"a", b"b"], 2)]


async def test_no_handlers() -> None:
    with pytest.raises(truba.ConfigError):
        truba.serve_handlers({})
