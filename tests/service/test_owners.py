"""Whose session it is, over the wire: ownership by connection, coming back, taking over, being fenced; pipelining."""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress

import pytest

from tests.service.process import Server, Servers, kind
from tests.service.wire import Listener, Refused, Wire, fields, request, until

TOKEN = b"an owner's secret"


def code(outcome: object) -> str:
    return outcome.code if isinstance(outcome, Refused) else repr(outcome)


def phase(wire: Wire, id_text: bytes) -> str:
    return str(fields(wire.ask("SHOW", id_text))["phase"].decode())


def test_an_owner_comes_back_and_is_told_what_was_applied(pipes: Servers) -> None:
    server = pipes.start()
    with Wire.dial(server.address) as first:
        assert first.ask("OWNER", TOKEN, "GRACE", 60) == []
        one = first.ask("NEW", "7", "TAG", 11, "a")
        assert first.ask("NEW", "7", "TAG", 11, "a") == one
        two = first.ask("NEW", "7", "TAG", 12)
        for record in "bcd":
            assert first.ask("APPEND", one, record) == b"OK"
        assert first.ask("DELETE", first.ask("NEW", "7", "TAG", 13)) == b"OK"
    with Wire.dial(server.address) as second:
        assert second.ask("OWNER", TOKEN, "GRACE", 60) == [[one, 7, 11, 3], [two, 7, 12, 0]]
        assert second.ask("NEW", "7", "TAG", 11, "ignored") == one
        assert second.ask("APPEND", one, "e") == b"OK"
        assert fields(second.ask("SHOW", one))["records"] == [b"a", b"b", b"c", b"d", b"e"]
        assert second.ask("NEW", "7", "TAG", 13) not in (one, two)  # that one was deleted: a tag is free again


def test_a_new_connection_takes_over_while_the_old_one_is_open(pipes: Servers) -> None:
    """G3: from then on the old one writes nothing."""
    server = pipes.start()
    with Wire.dial(server.address) as old, Wire.dial(server.address) as new:
        old.ask("OWNER", TOKEN, "GRACE", 60)
        made = old.ask("NEW", "7", "TAG", 1, "a")
        assert new.ask("OWNER", TOKEN, "GRACE", 60) == [[made, 7, 1, 0]]
        for words in (("APPEND", made, "stale"), ("REPLACE", made, "stale"), ("DELETE", made), ("STORE", made, 0)):
            assert code(old.asked([request(*words)])[0]) == "FENCED"
        assert new.ask("APPEND", made, "b") == b"OK"
        old.close()
        assert new.ask("APPEND", made, "c") == b"OK"  # the end of the old one does not end the new one's hold
        assert fields(new.ask("SHOW", made))["records"] == [b"a", b"b", b"c"]


def test_who_does_not_come_back_within_the_grace_loses_the_session_to_the_handler(
    pipes: Servers, listener: Listener
) -> None:
    server = pipes.start(kind(handler=listener.url))
    handler = listener.serve(7)
    with Wire.dial(server.address) as client:
        client.ask("OWNER", TOKEN, "GRACE", "0.3")
        made = client.ask("NEW", "7", "TAG", 1, "a")
        cut_s = time.monotonic()
    assert handler.push()[1:7] == [made, 1, 7, 1, 60_000, b"lost"]
    assert time.monotonic() - cut_s >= 0.3
    with Wire.dial(server.address) as client:
        assert client.ask("OWNER", TOKEN, "GRACE", 60) == []
        assert code(client.asked([request("APPEND", made, "late")])[0]) == "FENCED"


def test_a_grace_over_the_configured_limit_is_refused(pipes: Servers) -> None:
    server = pipes.start(node='grace_max = "10s"')
    with Wire.dial(server.address) as client:
        refused = client.asked([request("OWNER", TOKEN, "GRACE", "10.001")])[0]
        assert code(refused) == "ERR"
        assert "GRACE is at most 10 s here" in str(refused)
        assert client.ask("OWNER", TOKEN, "GRACE", 10) == []


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_an_owner_comes_back_after_a_restart_of_the_pipe(pipes: Servers, how: str) -> None:
    server = pipes.start()
    with Wire.dial(server.address) as client:
        client.ask("OWNER", TOKEN, "GRACE", 60)
        made = client.ask("NEW", "7", "TAG", 5, "a")
        client.ask("APPEND", made, "b")
        nameless = Wire.dial(server.address)
        left = nameless.ask("NEW", "7", "x")
        getattr(server, how)()
        nameless.close()
    server = pipes.start_again(server.config)
    with Wire.dial(server.address) as client:
        assert client.ask("OWNER", TOKEN, "GRACE", 60) == [[made, 7, 5, 1]]
        assert client.ask("APPEND", made, "c") == b"OK"
        assert fields(client.ask("SHOW", made))["records"] == [b"a", b"b", b"c"]
        found = fields(client.ask("SHOW", left))
        assert found["phase"] == b"stored"
        assert found["cause"] == (b"restart" if how == "kill" else b"lost")


def test_a_hung_client_loses_its_session_and_touch_keeps_it(pipes: Servers) -> None:
    server = pipes.start(kind(idle_timeout="500ms", recovery_delay="1h"))
    with Wire.dial(server.address) as client, Wire.dial(server.address) as other:
        idle, touched = client.ask("NEW", "7", "a"), client.ask("NEW", "7", "a")
        until(lambda: (client.ask("TOUCH", touched), phase(other, idle))[1], lambda found: found == "stored")
        assert fields(other.ask("SHOW", idle))["cause"] == b"idle"
        assert phase(other, touched) == "active"
        assert code(client.asked([request("APPEND", idle, "late")])[0]) == "FENCED"
        assert client.ask("APPEND", touched, "in time") == b"OK"


def test_foreign_and_finished_sessions(shared: Server) -> None:
    with Wire.dial(shared.address) as mine, Wire.dial(shared.unix) as other:
        made = mine.ask("NEW", "7", "a")
        for verb, *rest in (("APPEND", "x"), ("REPLACE", "x"), ("DELETE",), ("STORE", "1"), ("FAIL",), ("TOUCH",)):
            assert code(other.asked([request(verb, made, *rest)])[0]) == "FENCED", verb
            assert code(other.asked([request(verb, b"9" + made, *rest)])[0]) == "NOSESSION", verb
            assert code(mine.asked([request(verb, made + b"@1", *rest)])[0]) == "FENCED", verb
        assert mine.ask("APPEND", made + b"@0", "b") == b"OK"
        stored = mine.ask("NEW", "7", "a")
        assert mine.ask("STORE", stored, 3600) == b"OK"
        assert mine.ask("DELETE", made) == b"OK"
        for verb, *rest in (("APPEND", "x"), ("REPLACE", "x"), ("DELETE",), ("STORE", "1"), ("FAIL",), ("TOUCH",)):
            assert code(mine.asked([request(verb, made, *rest)])[0]) == "CLOSED", verb
            assert code(mine.asked([request(verb, stored, *rest)])[0]) == "CLOSED", verb
            assert code(other.asked([request(verb, made, *rest)])[0]) == "NOSESSION", verb
            assert code(other.asked([request(verb, stored, *rest)])[0]) == "FENCED", verb
        assert other.ask("REMOVE", stored) == b"OK"


def test_ten_thousand_requests_in_one_write_are_answered_in_order(shared: Server) -> None:
    """G2: and take effect in that order."""
    with Wire.dial(shared.address) as client:
        made = client.ask("NEW", "7")
        requests: list[bytes] = []
        for at in range(5_000):
            requests += [request("PING", at), request("APPEND", made, at)]
        reader: list[object] = []
        thread = threading.Thread(target=lambda: reader.extend(client.outcome() for _ in requests))
        thread.start()
        client.send(b"".join(requests))
        thread.join()
        assert reader[::2] == [b"%d" % at for at in range(5_000)]
        assert set(reader[1::2]) == {b"OK"}
        assert fields(client.ask("SHOW", made))["records"] == [b"%d" % at for at in range(5_000)]
        assert client.ask("DELETE", made) == b"OK"


MIB = 1 << 20


@pytest.mark.parametrize("what", ["small answers", "large answers", "records"])
def test_a_client_that_never_reads_stops_only_itself(pipes: Servers, what: str) -> None:
    """Its answers and requests are bounded in the pipe's memory, and others are served meanwhile."""
    server = pipes.start()
    with Wire.dial(server.address) as deaf, Wire.dial(server.address) as other:
        made = deaf.ask("NEW", "7", bytes(MIB))
        again = {
            "small answers": request("PING", "x" * 100),
            "large answers": request("SHOW", made),  # a few bytes ask for a mebibyte each
            "records": request("REPLACE", made, bytes(100_000)),
        }[what]
        before = server.rss_bytes()
        deaf.sock.setblocking(False)
        stream = memoryview(again * (MIB // len(again) + 1))
        sent, end_s, worst_s = 0, time.monotonic() + 1.5, 0.0
        while time.monotonic() < end_s and sent < 512 * MIB:
            with suppress(BlockingIOError):
                sent += deaf.sock.send(stream[sent % len(stream) :])
            asked_s = time.monotonic()
            assert other.ask("NEW", "7", "x")
            worst_s = max(worst_s, time.monotonic() - asked_s)
        assert server.rss_bytes() - before < 100 * MIB
        assert worst_s < 2.0


def test_who_reads_late_gets_every_answer(pipes: Servers) -> None:
    """Back-pressure delays answers, it loses and reorders none."""
    server = pipes.start()
    with Wire.dial(server.address) as client:
        made = client.ask("NEW", "7", bytes(100_000))
        requests = [request("PING", at) if at % 2 else request("SHOW", made) for at in range(2_000)]
        thread = threading.Thread(target=client.send, args=(b"".join(requests),))
        thread.start()
        for at in range(2_000):
            if at % 250 == 0:
                time.sleep(0.02)  # let the pipe run into its limits
            found = client.answer()
            if at % 2:
                assert found == b"%d" % at
            else:
                assert fields(found)["records"] == [bytes(100_000)]
        thread.join()
        client.send(request("ECHO", "the last") + request("QUIT"))
        assert client.answer() == b"the last"
        assert client.answer() == b"OK"
        with pytest.raises(ConnectionError):
            client.next()


def test_who_has_said_all_still_hears_the_answers(pipes: Servers) -> None:
    """A half-closed connection, as `nc` leaves it; also when answers must wait for room, and after a framing error."""
    server = pipes.start()
    with Wire.dial(server.address) as client:
        made = client.ask("NEW", "7", bytes(MIB))
        client.send(b"".join(request("SHOW", made) for _ in range(20)) + request("DELETE", made) + b"NEW 7 last\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        for _ in range(20):
            assert fields(client.answer())["records"] == [bytes(MIB)]
        assert client.answer() == b"OK"
        assert client.answer().startswith(b"1-")
        assert client.ended()
    with Wire.dial(server.address) as client:
        made = client.ask("NEW", "7", bytes(MIB))
        client.send(b"".join(request("SHOW", made) for _ in range(20)) + b"\x00" + request("PING"))
        for _ in range(20):
            assert fields(client.answer())["records"] == [bytes(MIB)]
        assert code(client.outcome()) == "ERR"
        assert client.ended()


def test_connections_that_are_cut_at_any_byte_leave_nothing_half_done(pipes: Servers) -> None:
    """G2: an operation whose answer was not read is there wholly or not at all."""
    server = pipes.start(kind(recovery_delay="1h"))
    dice = random.Random(5)
    with Wire.dial(server.address) as other:
        for _ in range(50):
            with Wire.dial(server.address) as client:
                made = client.ask("NEW", "7", "0")
                data = b"".join([request("APPEND", made, at, f"{at}b") for at in range(1, 20)])
                client.send(data[: dice.randrange(len(data))])
            until(lambda m=made: phase(other, m), lambda found: found == "stored")
            records = fields(other.ask("SHOW", made))["records"]
            whole = [b"0"] + [word for at in range(1, 20) for word in (b"%d" % at, b"%db" % at)]
            assert records == whole[: len(records)]
            assert len(records) % 2 == 1
