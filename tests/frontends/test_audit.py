"""What operators change over the clients' address: written down before it is done, and before it is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.client.inprocess import until
from tests.frontends.cluster import Place, Talk
from truba.audit import AuditFile
from truba.errors import BadRequest
from truba.frontends.listening import Listen, bind
from truba.log.memory import MemoryLog
from truba.passwords import make
from truba.ports.backup import Progress
from truba.rights import GROUPS, expand
from truba.testing.jump import JumpClock
from truba.types import Index
from truba.users import User, Users
from truba.wire.connection import WireSettings

RIGHTS = {"ann": ("write", "operate", "read"), "bob": ("write", "read")}


class Backups:
    """Of whoever asks: only their names matter here."""

    progress = Progress()

    def begin(self, name: str) -> str:
        if "/" in name:
            raise BadRequest(f"{name!r} is no name for a backup; nothing was begun")
        return f"/backups/{name}"


class Audited(Place):
    """A pipe with two users, one of whom may steer it."""

    path: Path
    log: MemoryLog

    def lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def results(self) -> list[str]:
        return [line["result"] for line in self.lines()]

    async def stored(self, talk: Talk) -> bytes:
        number: bytes = await talk.ask(b"NEW", b"7", b"hidden contents")
        assert await talk.ask(b"STORE", number, b"3600") == b"OK"
        return number

    def there(self, number: bytes) -> bool:
        assert self.node is not None
        return self.node.machine.get(Index.parse(number).seq) is not None


@asynccontextmanager
async def audited(directory: Path, name: str = "audit.jsonl", *, kept: bool = True) -> AsyncIterator[Audited]:
    """`kept`: there is an audit log."""
    users = Users(
        [
            User(name, dict.fromkeys(expand(words)), password_hash=make(name.encode(), b"salt", slow=False))
            for name, words in RIGHTS.items()
        ]
    )
    audit = AuditFile(directory / name, JumpClock())
    made = Audited(await bind(Listen("127.0.0.1:0")), WireSettings(authenticator=users, audit=audit if kept else None))
    made.path, made.log = directory / name, MemoryLog()
    try:
        (await made.lead(made.log)).operators.backups = Backups()
        yield made
    finally:
        made.log.held = False
        made.log.release()
        made.listening.close()
        await made.rest()
        await audit.close()


@asynccontextmanager
async def talking(here: Audited, user: str = "ann") -> AsyncIterator[Talk]:
    async with Talk(here.address) as talk:
        assert await talk.ask(b"AUTH", user.encode(), user.encode()) == b"OK"
        yield talk


ACTS = {
    "RESUME": ("resume", "session {id}"),
    "REMOVE": ("delete", "session {id}"),
    "PAUSE": ("pause", "kind 7"),
    "CONTINUE": ("continue", "kind 7"),
    "BACKUP": ("begin a backup", "backup '{id}'"),
}


@pytest.mark.parametrize("verb", sorted(GROUPS["operate"]))
async def test_every_verb_that_operates_is_in_the_audit_log(tmp_path: Path, verb: str) -> None:
    async with audited(tmp_path) as here, talking(here) as talk:
        number = await here.stored(talk)
        act, on = ACTS[verb]
        talk.send(verb.encode(), b"seven" if on.startswith("kind") else number)
        talk.send(b"PING")  # answers keep their order
        assert await talk.answer() in (b"OK", b"/backups/" + number)
        assert await talk.answer() == b"PONG"
        assert [line["result"] for line in here.lines()] == ["asked", "done"]
        for line in here.lines():
            assert (line["who"], line["act"]) == ("ann", act)
            assert on.replace("{id}", number.decode()) in line["on"]
            assert line["peer"] == "{}:{}".format(*talk.writer.get_extra_info("sockname"))
        assert "hidden" not in here.path.read_text()


async def test_refusals_are_written_down_and_change_nothing(tmp_path: Path) -> None:
    async with audited(tmp_path) as here, talking(here) as talk:
        held = await talk.ask(b"NEW", b"7", b"a")
        assert here.node is not None
        refusals = here.node.refusals.copy()
        for words in ((b"RESUME", held), (b"REMOVE", held), (b"BACKUP", b"../elsewhere")):
            answer = await talk.ask(*words)
            assert answer.startswith(("BUSY", "ERR")), answer
            assert here.results()[-2:] == ["asked", f"refused: {answer.partition(' ')[2]}"]
        assert here.there(held)
        assert here.node.refusals - refusals == {"BUSY": 2, "ERR": 1}


async def test_who_may_not_and_what_is_not_there_leave_no_line(tmp_path: Path) -> None:
    """Else whoever is known could fill the disk with what he may not do."""
    async with audited(tmp_path) as here, talking(here, "bob") as bob, talking(here) as ann:
        number = await here.stored(ann)
        for words in ((b"RESUME", number), (b"REMOVE", number), (b"PAUSE", b"7"), (b"BACKUP", b"one")):
            assert (await bob.ask(*words)).startswith("NOPERM")
        for verb in (b"REMOVE", b"RESUME"):
            said = await ann.ask(verb, b"1-9999")
            assert said == "NOSESSION no session 1-9999: it is finished, or never was; nothing was changed"
        for verb in (b"PAUSE", b"CONTINUE"):
            for kind, named in ((b"9", "9"), (b"nine", "'nine'")):
                said = await ann.ask(verb, kind)
                assert said == f"UNKNOWNKIND no kind {named} is configured; nothing was changed"
        assert (await ann.ask(b"BACKUP"))[0] == b"state"  # a question
        assert here.there(number)
        assert not here.path.exists()


@pytest.mark.parametrize("verb", [b"SHOW", b"WHY", b"RESUME", b"REMOVE"])
async def test_of_another_epoch_is_another_hand_over(tmp_path: Path, verb: bytes) -> None:
    async with audited(tmp_path) as here, talking(here) as talk, talking(here, "bob") as bob:
        number = await here.stored(talk)
        for epoch in (b"@1", b"@9223372036854775807"):
            answer = await talk.ask(verb, number + epoch)
            assert answer.startswith(f"FENCED session {number.decode()} is at epoch 0, not {epoch[1:].decode()}")
            assert answer.endswith("; nothing was changed") is (verb in (b"RESUME", b"REMOVE"))
        if verb in (b"RESUME", b"REMOVE"):
            assert (await bob.ask(verb, number + b"@1")).startswith("NOPERM")
        assert here.there(number)
        assert not here.path.exists()
        assert not isinstance(await talk.ask(verb, number + b"@0"), str)


async def test_nothing_is_changed_without_an_audit_log(tmp_path: Path) -> None:
    async with audited(tmp_path, "missing/audit.jsonl") as here, talking(here) as talk:
        number = await here.stored(talk)
        answer = await talk.ask(b"REMOVE", number)
        assert answer.startswith("UNAVAILABLE the audit log")
        assert "nothing was changed" in answer
        assert here.there(number)


async def test_the_answer_waits_for_the_disk(tmp_path: Path) -> None:
    async with audited(tmp_path) as here, talking(here) as talk:
        number = await here.stored(talk)
        here.log.held = True
        talk.send(b"REMOVE", number)
        await until(lambda: not here.there(number))
        assert here.results() == ["asked"]
        assert not await talk.said_something()
        here.log.held = False
        here.log.release()
        assert await talk.answer() == b"OK"
        assert here.results() == ["asked", "done"]


@pytest.mark.parametrize("kept", [False, True])
async def test_a_pause_is_answered_when_it_is_durable_and_so_is_one_that_changes_nothing(
    tmp_path: Path, kept: bool
) -> None:
    async with audited(tmp_path, kept=kept) as here, talking(here) as first, talking(here) as second:
        assert here.node is not None
        machine = here.node.machine
        here.log.held = True
        first.send(b"PAUSE", b"7")
        await until(lambda: 7 in machine.paused)
        seq = machine.seq
        second.send(b"PAUSE", b"seven")  # it is so already, and nobody knows yet whether it stays so
        assert not await second.said_something()
        assert not await first.said_something()
        here.log.held = False
        here.log.release()
        assert [await first.answer(), await second.answer()] == [b"OK", b"OK"]
        assert machine.seq == seq
        assert await second.ask(b"CONTINUE", b"7") == b"OK"
        assert not machine.paused


async def test_who_hangs_up_does_not_undo_it(tmp_path: Path) -> None:
    async with audited(tmp_path) as here:
        async with talking(here) as talk:
            number = await here.stored(talk)
            here.log.held = True
            talk.send(b"REMOVE", number)
            await until(lambda: not here.there(number))
        here.log.held = False
        here.log.release()
        await until(lambda: here.results() == ["asked", "done"])


async def test_a_stop_waits_for_what_was_asked(tmp_path: Path) -> None:
    """And what it comes too late for is refused, and written down as that."""
    async with audited(tmp_path) as here, talking(here) as talk:
        number = await here.stored(talk)
        talk.send(b"REMOVE", number)
        await until(lambda: bool(here.lines()))
        await here.rest()
    assert here.results()[0] == "asked"
    assert here.results()[1].startswith(("done", "refused: the pipe has stopped"))
