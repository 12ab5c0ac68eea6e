"""Sessions posted to receivers that do right, and to those that do wrong at every step."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from click.testing import CliRunner

import truba
from tests.client.inprocess import served, until
from tests.transports.receiver import (
    NO_CONTENT,
    SECRET,
    Post,
    Receiver,
    Script,
    Told,
    http,
    kind,
    piped,
    receiving,
    reset,
    webhook,
)
from truba.cli.main import main
from truba.node import notices
from truba.transports import webhook as transport
from truba.transports.notes import ping
from truba.transports.posting import NotDelivered
from truba.transports.webhook import ANSWER_BYTES_SPARE
from truba.types import Cause, Phase
from truba.webhook import Parked, Ping, Webhook, verify


async def run(
    path: Path, *scripts: Script, records: tuple[bytes, ...] = (b"a",), **policy: Any
) -> tuple[Receiver, Told]:
    """One session, posted until it is gone."""
    async with receiving(*scripts) as receiver, piped(path, kind(webhook(receiver), **policy)) as (pipe, told):
        await (await pipe.new(7, *records)).store(0)
        await until(lambda: not pipe.node.machine.counts)
        return receiver, told


async def test_what_is_posted(tmp_path: Path) -> None:
    receiver, told = await run(tmp_path, records=(b"a\x00\xff", b""), handler_timeout_s=9)
    (post,) = receiver.posts
    assert post.head == "POST /unfinished HTTP/1.1"
    assert post.headers["Content-Type"] == "application/json"
    said = post.unfinished
    assert (said.session, said.epoch, said.kind, said.name) == ("1-2", 1, 7, "kind-7")
    assert (said.attempt, said.cause, said.records) == (1, Cause.STORED, [b"a\x00\xff", b""])
    assert 0 < said.deadline_ms <= 9000
    assert post.headers["webhook-id"] == "1-2@1"
    assert set(post.headers) == {
        "Host", "Content-Type", "Content-Length", "User-Agent", "Accept", "Accept-Encoding",
        "webhook-id", "webhook-timestamp", "webhook-signature",
    }  # fmt: skip
    assert told.lines == []


async def test_the_trace_of_the_client_is_in_the_headers(tmp_path: Path) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with receiving() as receiver, piped(tmp_path, kind(webhook(receiver))) as (pipe, _):
        for trace in (parent.encode(), b"none\r\nX-Other: y"):
            await (await pipe.new(7, trace=trace)).store(0)
        await until(lambda: not pipe.node.machine.counts)
        traced = {post.headers.get("traceparent") for post in receiver.posts}
        assert traced == {parent, None}
        assert not any("X-Other" in post.headers for post in receiver.posts)


async def test_messagepack_both_ways(tmp_path: Path) -> None:
    packed = http(200, msgspec.msgpack.encode({"store": 0, "append": [b"\xff"]}), content_type="application/msgpack")
    async with (
        receiving(packed) as receiver,
        piped(tmp_path, kind(webhook(receiver, format="msgpack"))) as (pipe, _),
    ):
        await (await pipe.new(7, b"\x00")).store(0)
        await until(lambda: not pipe.node.machine.counts)
    first, second = receiver.posts
    assert first.headers["Content-Type"] == "application/msgpack"
    assert (first.unfinished.records, second.unfinished.records) == ([b"\x00"], [b"\x00", b"\xff"])


async def test_an_answer_that_writes_and_stores(tmp_path: Path) -> None:
    receiver, told = await run(
        tmp_path,
        http(200, b'{"append": ["Yg==", "Yw=="], "store": 0}'),
        http(200, b'{"replace": "ZA==", "store": 0.05}'),
        http(200, b'{"store": 0}'),
    )
    said = [post.unfinished for post in receiver.posts]
    assert [one.records for one in said] == [[b"a"], [b"a", b"b", b"c"], [b"d"], [b"d"]]
    assert [(one.epoch, one.attempt, one.cause) for one in said] == [(at, at, Cause.STORED) for at in range(1, 5)]
    assert [post.headers["webhook-id"] for post in receiver.posts] == ["1-2@1", "1-2@2", "1-2@3", "1-2@4"]
    assert told.lines == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http(500, b"out of order"), "answered 500: out of order"),
        (http(410), "answered 410"),
        (http(302, b"", "Location: http://127.0.0.1:1/else"), "redirects are not followed"),
        (http(200, b'{"store": 1, "delete": true}'), "answered 200 with both delete and store"),
        (http(200, b"<html>log in</html>", content_type="text/html"), "neither JSON nor MessagePack"),
        (
            http(200, b'{"append": ["' + b"QUFB" * 40 + b'"], "store": 0}'),
            "its record was refused: a record of 120 bytes",
        ),
        (http(200, b"a", "Content-Encoding: gzip"), "which was not asked for"),
        (b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello", "answered 101"),
    ],
)
async def test_an_answer_that_fails(tmp_path: Path, answer: bytes, why: str) -> None:
    receiver, told = await run(tmp_path, answer, record_bytes_max=100)
    assert [(post.unfinished.attempt, post.unfinished.cause) for post in receiver.posts] == [
        (1, Cause.STORED),
        (2, Cause.FAILED),
    ]
    assert receiver.posts[1].unfinished.records == [b"a"]
    (detail,) = told.details()
    assert why in detail


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff" * 1000,
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    ],
)
async def test_garbage_is_a_lost_attempt(tmp_path: Path, answer: bytes) -> None:
    receiver, told = await run(tmp_path, answer)
    assert [(post.unfinished.attempt, post.unfinished.cause) for post in receiver.posts] == [
        (1, Cause.STORED),
        (2, Cause.LOST),
    ]
    assert receiver.connections == 2
    (detail,) = told.details()
    assert detail.startswith(("what answers does not speak HTTP", "the connection broke"))


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1", b"HTTP/1.1 200 OK\r\nX: y", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", None]
)
@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_connection_that_breaks_at_each_stage(tmp_path: Path, begun: bytes | None, how: str) -> None:
    """None: before anything of the POST was read."""

    async def hang_up(writer: asyncio.StreamWriter) -> None:
        if begun:
            writer.write(begun)
            await writer.drain()
        if how == "reset":
            reset(writer)
        else:
            writer.close()

    async with receiving() as receiver, piped(tmp_path, kind(webhook(receiver))) as (pipe, told):
        if begun is None:
            receiver.on_connect.append(lambda _, writer: hang_up(writer))
        else:
            receiver.scripts.append(lambda post: hang_up(post.writer))
        await (await pipe.new(7, b"a" * 100_000, b"b" * 900_000)).store(0)
        await until(lambda: not pipe.node.machine.counts)
    last = receiver.posts[-1].unfinished
    assert (last.attempt, last.cause, last.epoch) == (2, Cause.LOST, 2)
    (detail,) = told.details()
    assert detail.startswith("the connection broke before the answer was complete")


async def test_an_early_answer_ends_a_long_post(tmp_path: Path) -> None:
    """Whoever takes no such body says so without reading it."""

    async def too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(413, b"too large", "Connection: close"))
        await writer.drain()
        await reader.read()

    async with receiving() as receiver, piped(tmp_path, kind(webhook(receiver))) as (pipe, told):
        receiver.on_connect.append(too_large)
        await (await pipe.new(7, *[b"a" * (1 << 20)] * 6)).store(0)
        await until(lambda: not pipe.node.machine.counts)
    assert receiver.posts[-1].unfinished.records == [b"a" * (1 << 20)] * 6
    assert told.details() == ["answered 413: too large"]


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_without_end_costs_no_memory(tmp_path: Path, status: int) -> None:
    sent = 0

    async def talk(post: Post) -> None:
        nonlocal sent
        post.writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n\r\n" % status)
        while not post.writer.is_closing() and sent < 100 << 20:
            post.writer.write(b" " * 65_536)
            sent += 65_536
            await post.writer.drain()

    receiver, told = await run(tmp_path, talk, record_bytes_max=1000)
    assert receiver.posts[-1].unfinished.attempt == 2
    # What fits into an answer, what the reader holds, and what the two sockets do.
    assert sent < ANSWER_BYTES_SPARE + (12 << 20)
    (detail,) = told.details()
    expected = f"answered 200 with more than {2000 + ANSWER_BYTES_SPARE} bytes" if status == 200 else "answered 500"
    assert detail == expected


async def test_headers_without_end(tmp_path: Path) -> None:
    sent = 0

    async def talk(post: Post) -> None:
        nonlocal sent
        post.writer.write(b"HTTP/1.1 200 X\r\n")
        while not post.writer.is_closing() and sent < 100 << 20:
            post.writer.write(b"X-Y: z\r\n" * 1000)
            sent += 8000
            await post.writer.drain()

    receiver, _ = await run(tmp_path, talk)
    assert receiver.posts[-1].unfinished.attempt == 2
    assert sent < 12 << 20


async def test_an_outage_uses_no_attempt_up(tmp_path: Path) -> None:
    """Nobody listens at first; when somebody does, this is still the first attempt."""
    async with receiving() as gone:
        where = webhook(gone)
    policy = kind(where, max_attempts=1, backoff=truba.Backoff(0.01, 1, 0.01))
    async with piped(tmp_path, policy) as (pipe, told):
        session = await pipe.new(7, b"a")
        await session.store(0)
        await until(lambda: len(told.details()) >= 3)
        head = pipe.node.look_up(session.id)
        assert head.attempts <= 1
        assert "refused" in told.details()[0]
        receiver = Receiver([])
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", gone.port)
        await until(lambda: not pipe.node.machine.counts)
        server.close()
    assert receiver.posts[0].unfinished.attempt == 1
    assert receiver.posts[0].unfinished.cause == Cause.UNREACHABLE
    assert receiver.posts[0].unfinished.epoch > 3


async def test_who_never_takes_the_connection_is_unreachable_before_it_is_late(tmp_path: Path) -> None:
    """A full queue of a listening socket: the kernel answers nothing at all."""
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = silent.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        try:
            where = Webhook(f"http://127.0.0.1:{address[1]}/", SECRET)
            slow = truba.Backoff(60, 1, 60)
            async with piped(tmp_path, kind(where, handler_timeout_s=3, backoff=slow)) as (pipe, told):
                session = await pipe.new(7, b"a")
                await session.store(0)
                await until(lambda: bool(told.details()))
                head = pipe.node.look_up(session.id)
                assert (head.cause, head.attempts, head.detail) == (Cause.UNREACHABLE, 0, "no connection in time")
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_stores_for_that_long_and_costs_no_attempt(tmp_path: Path, status: int, form: str) -> None:
    wanted = "600" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    async with (
        receiving(http(status, b"full", f"Retry-After: {wanted}")) as receiver,
        piped(tmp_path, kind(webhook(receiver), max_attempts=1)) as (pipe, told),
    ):
        before_ms = pipe.node.clock.now_ms()
        session = await pipe.new(7, b"a")
        await session.store(0)
        await until(lambda: bool(told.lines))
        head = pipe.node.look_up(session.id)
        assert (head.phase, head.cause, head.attempts) == (Phase.STORED, Cause.UNREACHABLE, 0)
        assert head.detail == f"answered {status}: full"
        # A date has whole seconds.
        assert 598_000 < head.due_ms - before_ms < 660_000
        assert told.details() == [f"answered {status}: full"]
        await pipe.resume(session.id)
        await until(lambda: not pipe.node.machine.counts)
    assert [post.unfinished.attempt for post in receiver.posts] == [1, 1]


async def test_not_now_without_a_time_follows_the_backoff(tmp_path: Path) -> None:
    receiver, told = await run(tmp_path, http(503), http(429), max_attempts=1)
    assert [post.unfinished.attempt for post in receiver.posts] == [1, 1, 1]
    assert [post.unfinished.cause for post in receiver.posts] == [Cause.STORED, Cause.UNREACHABLE, Cause.UNREACHABLE]
    assert told.details() == ["answered 503", "answered 429"]


async def test_g3_a_late_answer_is_dropped(tmp_path: Path) -> None:
    """Two attempts are under way at their receivers at once; what the first one says must not count."""
    second_came, late_answered = asyncio.Event(), asyncio.Event()

    async def late(post: Post) -> None:
        owner = pipe.node.dispatcher.lanes[7].route.seat(7)
        assert owner is not None
        (hold,) = owner.holds.values()
        pipe.node.give_back(hold, Cause.LATE)  # as if its time were over
        await second_came.wait()
        post.writer.write(http(200, b'{"replace": "bGF0ZQ==", "store": 1000}'))
        late_answered.set()

    async def second(post: Post) -> None:
        second_came.set()
        await late_answered.wait()
        await asyncio.sleep(0.05)  # the late answer is on its way
        post.writer.write(http(200, b'{"append": ["Yg=="], "store": 0}'))

    async with receiving(late, second) as receiver, piped(tmp_path, kind(webhook(receiver))) as (pipe, told):
        await (await pipe.new(7, b"a")).store(0)
        await until(lambda: not pipe.node.machine.counts)
    said = [post.unfinished for post in receiver.posts]
    assert [(one.epoch, one.cause) for one in said] == [(1, Cause.STORED), (2, Cause.LATE), (3, Cause.STORED)]
    assert [one.records for one in said] == [[b"a"], [b"a"], [b"a", b"b"]]
    (dropped,) = [fields for event, fields in told.lines if event == "webhook's answer dropped"]
    assert (dropped["session"], dropped["epoch"]) == ("1-2", 1)
    assert "taken away before it: late" in str(dropped["reason"])


async def test_g3_an_answer_in_the_very_turn_in_which_the_session_is_taken(tmp_path: Path) -> None:
    """The answer has been read, and its task not run yet, when the hold ends."""
    async with receiving() as receiver, piped(tmp_path, kind(webhook(receiver))) as (pipe, told):
        original = transport.judge

        def judge(*args: Any) -> Any:
            owner = pipe.node.dispatcher.lanes[7].route.seat(7)
            assert owner is not None
            (hold,) = owner.holds.values()
            transport.judge = original  # once
            pipe.node.give_back(hold, Cause.LATE)
            return original(*args)

        transport.judge = judge  # type: ignore[assignment]
        try:
            await (await pipe.new(7, b"a")).store(0)
            await until(lambda: not pipe.node.machine.counts)
        finally:
            transport.judge = original
    assert [post.unfinished.epoch for post in receiver.posts] == [1, 2]
    assert "webhook's answer dropped" in [event for event, _ in told.lines]


@pytest.mark.parametrize("together", [True, False])
async def test_what_was_said_to_one_post_is_no_answer_to_the_next(tmp_path: Path, together: bool) -> None:
    """A receiver that answers twice, at once or after a while, on a connection that is kept."""

    async def twice(post: Post) -> None:
        if together:
            post.writer.write(NO_CONTENT + NO_CONTENT)
        else:
            post.writer.write(NO_CONTENT)
            await until(lambda: not pipe.node.machine.counts)
            post.writer.write(NO_CONTENT)
        await post.writer.drain()
        await asyncio.sleep(0.02)

    async with receiving(twice, http(500, b"not done")) as receiver, piped(tmp_path, kind(webhook(receiver))) as both:
        pipe, told = both
        await (await pipe.new(7, b"a")).store(0)
        await until(lambda: not pipe.node.machine.counts and not receiver.at_once)
        await (await pipe.new(7, b"b")).store(0)
        await until(lambda: not pipe.node.machine.counts)
        assert told.details() == ["answered 500: not done"]
    assert [post.unfinished.records for post in receiver.posts] == [[b"a"], [b"b"], [b"b"]]


@pytest.mark.parametrize("how", ["reads nothing", "byte by byte", "interim answers"])
async def test_whoever_draws_it_out_is_late(tmp_path: Path, how: str) -> None:
    async def draw_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if how == "reads nothing":
            await asyncio.sleep(5)
            return
        await reader.readuntil(b"\r\n\r\n")
        if how == "byte by byte":
            writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" if how == "interim answers" else b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with receiving() as receiver, piped(tmp_path, kind(webhook(receiver), handler_timeout_s=0.5)) as (pipe, _):
        receiver.on_connect.append(draw_out)
        await (await pipe.new(7, b"a" * (1 << 20))).store(0)
        await until(lambda: not pipe.node.machine.counts)
    # On a busy machine the next ones may be late too.
    assert {post.unfinished.cause for post in receiver.posts} == {Cause.LATE}


async def test_as_many_at_once_as_the_kinds_concurrency_on_connections_that_are_kept(tmp_path: Path) -> None:
    async def a_while(post: Post) -> None:
        await asyncio.sleep(0.01)
        post.writer.write(NO_CONTENT)

    async with (
        receiving(*[a_while] * 40) as receiver,
        piped(tmp_path, kind(webhook(receiver), concurrency=3)) as (pipe, _),
    ):
        for _ in range(40):
            await (await pipe.new(7, b"a")).store(0)
        await until(lambda: not pipe.node.machine.counts)
    assert receiver.at_once_max == 3
    assert receiver.connections == 3
    assert len(receiver.posts) == 40


async def test_large_sessions_go_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "POSTED_BYTES_MAX", 1 << 20)

    async def a_while(post: Post) -> None:
        await asyncio.sleep(0.01)
        post.writer.write(NO_CONTENT)

    async with receiving(*[a_while] * 5) as receiver, piped(tmp_path, kind(webhook(receiver))) as (pipe, _):
        for _ in range(5):
            await (await pipe.new(7, b"a" * (1 << 20))).store(0)
        await until(lambda: not pipe.node.machine.counts)
    assert receiver.at_once_max == 1


async def test_kinds_share_an_address_and_its_pool(tmp_path: Path) -> None:
    async with receiving() as receiver:
        where = webhook(receiver)
        async with piped(tmp_path, kind(where), kind(where, 8)) as (pipe, _):
            assert pipe.node.dispatcher.lanes[7].route is pipe.node.dispatcher.lanes[8].route
            for number in (7, 8):
                await (await pipe.new(number, b"a")).store(0)
                await until(lambda: not pipe.node.machine.counts)
    assert [(post.unfinished.kind, post.connection) for post in receiver.posts] == [(7, 1), (8, 1)]


async def test_closing_gives_up_what_is_under_way(tmp_path: Path) -> None:
    async def forever(post: Post) -> None:
        await asyncio.sleep(3600)

    async with receiving(forever) as receiver:
        async with piped(tmp_path, kind(webhook(receiver))) as (pipe, _):
            await (await pipe.new(7, b"a")).store(0)
            await until(lambda: bool(receiver.posts))
            state = pipe.node.dispatcher.lanes[7].route.state()
            assert state == "posts, 1 under way"
        async with piped(tmp_path, kind(webhook(receiver))) as (pipe, _):
            await until(lambda: not pipe.node.machine.counts)
    first, second = (post.unfinished for post in receiver.posts)
    assert (first.session, first.epoch, second.session, second.epoch) == ("1-2", 1, "1-2", 2)


async def test_a_route_serves_one_node_after_the_other(tmp_path: Path) -> None:
    """As in a cluster, where a node ceases to lead, and leads again."""
    async with receiving() as receiver:
        policy = kind(webhook(receiver))
        async with served(policy, routes={7: transport.WebhookRoute(webhook(receiver), [policy])}) as pipe:
            for _ in range(3):
                async with truba.connect(pipe.url) as client:
                    await (await client.new(7, b"a")).store(0)
                    await until(lambda: not pipe.node.machine.counts)
                await pipe.stop()
                await pipe.start()
    assert [post.unfinished.session for post in receiver.posts] == ["1-2", "2-7", "3-12"]


async def test_an_answer_to_a_node_whose_log_has_failed(tmp_path: Path) -> None:
    """Nothing can be logged any more: the next start posts the session again, and nobody is told of a defect."""
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))

    async def fail_first(post: Post) -> None:
        pipe.node.give_up(truba.LogPoisoned("the disk is gone"))
        post.writer.write(NO_CONTENT)
        await asyncio.sleep(0.05)

    async with receiving(fail_first) as receiver:
        policy = kind(webhook(receiver))
        async with served(policy, routes={7: transport.WebhookRoute(webhook(receiver), [policy])}) as pipe:
            async with truba.connect(pipe.url) as client:
                await (await client.new(7, b"a")).store(0)
                await until(lambda: bool(receiver.posts) and not receiver.at_once)
            await pipe.kill()
            await next(iter(pipe.node.dispatcher.lanes.values())).route.stop()
            await pipe.start()
            await until(lambda: not pipe.node.machine.counts)
    gc.collect()
    assert [post.unfinished.epoch for post in receiver.posts] == [1, 2]
    assert troubles == []


# -- TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("names", "authority_known", "why"),
    [
        (["127.0.0.1"], True, ""),
        (["127.0.0.1"], False, "certificate is not trusted"),
        (["else.example"], True, "certificate is not trusted"),
    ],
)
async def test_the_certificate_is_verified(
    tmp_path: Path, authority: trustme.CA, names: list[str], authority_known: bool, why: str
) -> None:
    other = trustme.CA()
    (authority if authority_known else other).cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = server_context(authority.issue_cert(*names))
    async with receiving(tls=tls) as receiver:
        where = Webhook(f"https://127.0.0.1:{receiver.port}/", SECRET, ca_file=tmp_path / "ca.pem")
        slow = truba.Backoff(60, 1, 60)
        async with piped(tmp_path, kind(where, backoff=slow)) as (pipe, told):
            session = await pipe.new(7, b"a")
            await session.store(0)
            await until(lambda: bool(told.lines) or not pipe.node.machine.counts)
            if why:
                head = pipe.node.look_up(session.id)
                assert (head.cause, head.attempts) == (Cause.UNREACHABLE, 0)
                assert why in head.detail
            assert bool(receiver.posts) == (not why)


async def test_a_receiver_that_asks_is_shown_the_newest_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    other = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = server_context(authority.issue_cert("127.0.0.1"))
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    shown = tmp_path / "pipe.pem"
    other.issue_cert("pipe.example").private_key_and_cert_chain_pem.write_to_path(shown)
    async with receiving(NO_CONTENT, tls=tls) as receiver:
        url, ca_file = f"https://127.0.0.1:{receiver.port}/", tmp_path / "ca.pem"
        for certificate in (None, shown):
            with pytest.raises(NotDelivered):
                await ping(Webhook(url, SECRET, ca_file=ca_file, certificate_file=certificate), [7])
        assert not receiver.posts
        slow = truba.Backoff(0, 1, 0)
        where = Webhook(url, SECRET, ca_file=ca_file, certificate_file=shown)
        async with piped(tmp_path, kind(where, backoff=slow)) as (pipe, told):
            session = await pipe.new(7, b"a")
            await session.store(0)
            await until(lambda: bool(told.lines))
            assert not receiver.posts
            authority.issue_cert("pipe.example").private_key_and_cert_chain_pem.write_to_path(shown)
            await until(lambda: not pipe.node.machine.counts)
        assert len(receiver.posts) == 1


async def test_without_a_file_the_systems_authorities_decide(tmp_path: Path, authority: trustme.CA) -> None:
    async with receiving(tls=server_context(authority.issue_cert("127.0.0.1"))) as receiver:
        where = Webhook(f"https://127.0.0.1:{receiver.port}/", SECRET)
        with pytest.raises(NotDelivered, match="cannot be reached: its certificate is not trusted"):
            await ping(where, [7])
        assert not receiver.posts


async def test_tls_to_a_port_without_it_and_the_reverse(tmp_path: Path, authority: trustme.CA) -> None:

    async def bad_request(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(400))  # what servers make of a handshake

    async with receiving() as receiver:
        receiver.on_connect.append(bad_request)
        where = Webhook(f"https://127.0.0.1:{receiver.port}/", SECRET)
        with pytest.raises(NotDelivered, match="cannot be reached: it does not speak TLS as it should: WRONG_VERSION"):
            await ping(where, [7])
    async with receiving(tls=server_context(authority.issue_cert("127.0.0.1"))) as receiver:
        with pytest.raises(NotDelivered, match=r"broke|HTTP"):
            await ping(webhook(receiver), [7])


def test_a_file_of_certificates_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("hush")
    with pytest.raises(truba.ConfigError, match=r"ca\.pem: no certificates of an authority"):
        transport.WebhookRoute(Webhook("https://host/", SECRET, ca_file=tmp_path / "ca.pem"), [])


# -- beside sessions


async def test_a_ping() -> None:
    async with receiving(NO_CONTENT, http(200, b"OK", content_type="text/plain"), http(401), http(404)) as receiver:
        await ping(webhook(receiver), [8, 7])
        await ping(webhook(receiver), [])
        with pytest.raises(NotDelivered, match=r"answered 401; is the secret right\?"):
            await ping(webhook(receiver), [7])
        with pytest.raises(NotDelivered, match="answered 404"):
            await ping(webhook(receiver), [7])
    first, second = receiver.posts[:2]
    assert verify(first.headers, first.body, SECRET) == Ping([7, 8])
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    with pytest.raises(NotDelivered, match="cannot be reached: Connection refused"):
        await ping(webhook(receiver), [7])


async def test_a_parked_session_is_posted_until_somebody_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "AGAIN", truba.Backoff(0, 1, 0))
    async with receiving(http(500, b"no such account"), http(503), NO_CONTENT) as receiver:
        where = webhook(receiver)
        async with piped(tmp_path, kind(where, max_attempts=1, on_parked=where)) as (pipe, told):
            await (await pipe.new(7, b"a secret record")).store(0)
            await until(lambda: "parked session told of" in [event for event, _ in told.lines])
    session, *tries = receiver.posts
    assert session.headers["webhook-id"] == "1-2@1"
    assert [post.headers["webhook-id"] for post in tries] == ["1-2@1-parked"] * 2
    for post in tries:
        said = verify(post.headers, post.body, SECRET)
        assert said == Parked(
            "1-2", 7, "kind-7", "failed", "1 attempts, max_attempts is 1: answered 500: no such account", 1
        )
        assert b"secret record" not in post.body
    (failed,) = [fields for event, fields in told.lines if event == "parked hook failed"]
    assert failed["error"] == "NotDelivered: answered 503"
    assert failed["hook"] == f"webhook {where.url}"


async def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("truba.transports.webhook", "truba.transports.posting", "truba.transports.notes"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(truba.ConfigError, match=r"webhooks need aiohttp; pip install 'truba\[webhook\]'"):
        await truba.open(tmp_path, kinds=[kind(Webhook("https://host/", SECRET))])
    (tmp_path / "whsec").write_text(SECRET)
    (tmp_path / "truba.toml").write_text(
        '[kinds.a]\nnumber = 7\nhandler = "https://host/"\nwebhook = { secret_file = "whsec" }\n'
    )
    result = await asyncio.to_thread(CliRunner().invoke, main, ["check", "--config", str(tmp_path / "truba.toml")])
    assert result.exit_code == 1
    assert "webhooks need aiohttp; pip install 'truba[webhook]'" in result.stdout


async def test_a_plain_address_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(truba.ConfigError, match=r"no secret to sign with; write handler=truba\.webhook\.Webhook"):
        await truba.open(tmp_path, kinds=[truba.Kind(7, "transfer", "https://host/")])
