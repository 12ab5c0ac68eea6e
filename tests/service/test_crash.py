"""The pipe dies under load, or is asked to stop, and starts again: what it acknowledged is there, and nothing more."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.process import Server, Servers, kind
from tests.service.wire import Wire, fields, until

ROUNDS = 5
WRITERS = 4


class Told:
    """What one session's writer was told, and what it had asked for besides."""

    def __init__(self) -> None:
        self.id = ""
        self.records: list[str] = []  # as acknowledged
        self.gone = False  # its Delete was acknowledged
        self.stored = False
        self.open: list[tuple[str, list[str]]] = []  # asked for, outcome unknown, in order

    def states(self) -> Iterator[list[str] | None]:
        """The record lists that may be found: those acknowledged, then each that an open request would lead to."""
        records: list[str] | None = list(self.records)
        yield None if self.gone else records
        for verb, added in self.open:
            assert records is not None
            match verb:
                case "append":
                    records = records + added
                case "replace":
                    records = list(added)
                case "delete":
                    records = None
            yield records


def read(paths: list[Path]) -> dict[str, Told]:
    """The notes of all writers, by name of the session."""
    told: dict[str, Told] = {}
    for path in paths:
        for line in path.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # cut off by a kill
            what, name, verb, *rest = json.loads(line)
            session = told.setdefault(name, Told())
            match what, verb:
                case "try", _:
                    session.open.append((verb, rest[0]))
                case "no", _:
                    session.open.pop(0)
                case "ok", _:
                    asked, records = session.open.pop(0)
                    assert asked == verb
                    if verb == "new":
                        session.id = rest[0]
                    session.records = records if verb in ("new", "replace") else session.records + records
                    session.gone |= verb == "delete"
                    session.stored |= verb == "store"
    return told


def check(server: Server, told: dict[str, Told]) -> int:
    """Compare with what the pipe holds now; how many sessions it holds."""
    held: dict[str, dict[str, object]] = {}
    with Wire.dial(server.address) as client:
        cursor = b""
        while True:
            cursor, page = client.ask("LS", "LIMIT", 1_000, *(("AFTER", cursor) if cursor else ()))
            for each in page:
                session = fields(client.ask("SHOW", fields(each)["id"]))
                held[session["id"].decode()] = session
            if not cursor:
                break
    known = {session.id: name for name, session in told.items() if session.id}
    for name, session in told.items():
        if not session.id:
            continue
        found = held.get(session.id)
        records = None if found is None else [record.decode() for record in found["records"]]  # type: ignore[union-attr]
        states = list(session.states())
        # With no record a session that lost its owner has nothing to recover, and is deleted.
        assert records in states or (records is None and [] in states), (name, records, states)
        if session.stored:
            assert found is not None
            assert (found["phase"], found["cause"]) == (b"stored", b"stored")
    for id_text, session in held.items():  # type: ignore[assignment]
        if id_text in known:
            continue
        # Its New was not acknowledged, and what was asked for is there whole.
        records = [record.decode() for record in session["records"]]  # type: ignore[index]
        name = records[0].partition("/")[0]
        assert not told[name].id
        assert told[name].open[0] == ("new", records)
    return len(held)


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_g1_g2_g5_what_was_acknowledged_survives(pipes: Servers, how: str) -> None:
    """Records in order, none missing or half there; what was deleted stays deleted; round after round on one log."""
    dice = random.Random(2_611)
    # A small segment and frequent checkpoints, so that kills fall into all of what the pipe does.
    server = pipes.start(kind(recovery_delay="1h"), node='segment = "256KiB"\ncheckpoint = "128KiB"\n')
    paths: list[Path] = []
    for round_number in range(ROUNDS if how == "kill" else 2):
        writers = []
        for number in range(WRITERS):
            path = pipes.directory / f"notes-{round_number}-{number}"
            path.touch()
            paths.append(path)
            writers.append(pipes.child("writer", *server.address, round_number * WRITERS + number, path))
        until(lambda w=paths[-WRITERS:]: [path.stat().st_size for path in w], lambda sizes: min(sizes) > 2_000)
        time.sleep(dice.random() * 0.5)
        if how == "kill":
            server.kill()
        else:
            assert server.terminate() == 0
            assert server.logged[-1]["event"] == "stopped"
        for writer in writers:
            assert writer.wait() == 0, writer.lines
        server = pipes.start_again(server.config)
        told = read(paths)
        assert check(server, told) > 0
        assert sum(session.gone for session in told.values()) > 0


def test_checkpoints_keep_the_log_short(pipes: Servers) -> None:
    """Under load, with batches that are durable within the turn that sealed them; the stop does not wait for one."""
    server = pipes.start(node='segment = "256KiB"\ncheckpoint = "256KiB"\n')
    with Wire.dial(server.address) as client:

        def info(key: str) -> int:
            return int(client.ask("INFO").decode().partition(f"\r\n{key}:")[2].split()[0])

        for _ in range(40):
            made = client.ask("NEW", "7", bytes(50_000))
            assert client.ask("DELETE", made) == b"OK"
        kept = client.ask("NEW", "7", bytes(50_000))
        until(lambda: info("checkpoints"), lambda done: done >= 2)
        assert info("log_bytes") < 2_000_000
        started_s = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started_s < 5
    server = pipes.start_again(server.config)
    with Wire.dial(server.address) as client:
        assert fields(client.ask("SHOW", kept))["records"] == [bytes(50_000)]


def test_sigterm_answers_what_it_was_asked(pipes: Servers) -> None:
    """What arrived before the stop is done and answered; new sessions are refused with a reason, or the end comes."""
    server = pipes.start(kind(recovery_delay="1h"))
    with Wire.dial(server.address) as client:
        made = client.ask("NEW", "7", "a")
        server.process.terminate()
        answered = 0
        try:
            for _ in range(100_000):
                assert client.ask("APPEND", made, f"{answered}") == b"OK"
                answered += 1
        except (ConnectionError, BrokenPipeError):
            pass
    assert server.wait() == 0
    server = pipes.start_again(server.config)
    with Wire.dial(server.address) as client:
        records = fields(client.ask("SHOW", made))["records"]
    assert records[: answered + 1] == [b"a", *(b"%d" % at for at in range(answered))]
    assert len(records) - 1 - answered in (0, 1)
