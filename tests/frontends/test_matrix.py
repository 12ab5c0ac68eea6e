"""Every verb of the wire, on every kind, by every sort of user: asked of a real pipe, and compared with one table.

The table of verbs is the pipe's own, so a verb that somebody adds must be decided here (`ASKED`) and in `truba.rights`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from tests.client.inprocess import SEVEN, NoRoute
from tests.frontends.cluster import Talk
from truba.address import Address
from truba.frontends.listening import Listen, bind
from truba.frontends.resp import RespFrontend
from truba.kinds import Kind
from truba.log.memory import MemoryLog
from truba.node.node import Node
from truba.passwords import make
from truba.rights import ALL, FREE, GROUPS, expand
from truba.store.memory import MemoryStore
from truba.transports.dial import DialRoute
from truba.users import User, Users
from truba.wire.connection import WireSettings
from truba.wire.verbs import VERBS

EIGHT = Kind(8, "eight", handler="played:", recovery_delay_s=0.0, jitter_s=0.0)
KINDS = {7: SEVEN, 8: EIGHT}

RIGHTS: dict[str, list[tuple[str, Sequence[int] | None]]] = {
    "nobody": [],
    "root": [(group, None) for group in GROUPS],
    "writer7": [("write", [7])],
    "handler7": [("handle", [7])],
    "reader7": [("read", [7])],
    "operator7": [("operate", [7])],
    "reader": [("read", None)],
    "operator": [("operate", None)],
    "writer7reader8": [("write", [7]), ("read", [8])],
    "only_new_8": [("NEW", [8])],
}


def user(name: str, rights: Sequence[tuple[str, Sequence[int] | None]]) -> User:
    found: dict[str, set[int] | None] = {}
    for word, kinds in rights:
        for verb in expand([word]):
            before = found.setdefault(verb, set())
            found[verb] = None if kinds is None or before is None else before | set(kinds)
    return User(name, found, password_hash=make(name.encode(), b"salt", slow=False))


USERS = {name: user(name, rights) for name, rights in RIGHTS.items()}

ASKED: dict[str, list[tuple[bytes, ...]]] = {
    "NEW": [(b"{kind}",), (b"{name}", b"a record")],
    "APPEND": [(b"{held}", b"x")],
    "REPLACE": [(b"{held}", b"x")],
    "DELETE": [(b"{held}",)],
    "STORE": [(b"{held}", b"0")],
    "FAIL": [(b"{held}",)],
    "TOUCH": [(b"{held}",)],
    "OWNER": [(b"0123456789abcdef",)],
    "KINDS": [(b"{kind}",)],
    "LS": [(b"KIND", b"{kind}"), ()],
    "SHOW": [(b"{stored}",)],
    "WHY": [(b"{stored}",)],
    "RESUME": [(b"{stored}",)],
    "REMOVE": [(b"{stored}",)],
    "PAUSE": [(b"{kind}",)],
    "CONTINUE": [(b"{name}",)],
    "INFO": [(), (b"KIND", b"{kind}")],
    "BACKUP": [(), (b"name",)],
    "PING": [()],
    "ECHO": [(b"x",)],
    "AUTH": [(b"nobody", b"nobody")],
    "HELLO": [(b"2",)],
    "LEADER": [()],
    "CLIENT": [(b"ID",)],
    "COMMAND": [()],
    "CONFIG": [(b"GET", b"x")],
    "SELECT": [(b"0",)],
    "QUIT": [()],
}


def test_every_verb_is_decided_once() -> None:
    verbs = {verb.decode() for verb in VERBS}
    assert verbs == ALL | FREE
    assert not ALL & FREE
    assert ASKED.keys() == verbs


def test_groups_hold_what_their_names_say() -> None:
    """The whole of it, so that a change is seen."""
    on_sessions = {"APPEND", "REPLACE", "DELETE", "STORE", "FAIL", "TOUCH"}
    assert {name: set(verbs) for name, verbs in GROUPS.items()} == {
        "write": {"NEW", "OWNER"} | on_sessions,
        "handle": {"KINDS", "OWNER"} | on_sessions,
        "read": {"LS", "SHOW", "WHY", "INFO"},
        "operate": {"RESUME", "REMOVE", "PAUSE", "CONTINUE", "BACKUP"},
    }


def may(rights: Sequence[tuple[str, Sequence[int] | None]], verb: str, kind: int | None) -> bool:
    """The rule in the plainest words. `kind` None: it is about all kinds, or (OWNER) about none."""
    if verb in FREE:
        return True
    for word, kinds in rights:
        if verb in GROUPS.get(word, {word}) and (kinds is None or kind in kinds or verb == "OWNER"):
            return True
    return False


class Here:
    """A pipe with two kinds; sessions to do things to, put there by who may do everything."""

    node: Node
    address: Address
    frontend: RespFrontend


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Here]:
    made = Here()
    listening = await bind(Listen("127.0.0.1:0"))
    assert listening.bound is not None
    made.address = Address(*listening.bound)
    made.node = Node(MemoryLog(), MemoryStore(), list(KINDS.values()), {7: NoRoute(), 8: NoRoute()})  # type: ignore[dict-item]
    await made.node.start()
    made.frontend = RespFrontend(listening, WireSettings(authenticator=Users(list(USERS.values()))))
    await made.frontend.start(made.node)
    yield made
    listening.close()
    await made.frontend.stop()
    await made.node.stop()


@pytest.mark.parametrize("verb", sorted(verb.decode() for verb in VERBS))
@pytest.mark.parametrize("name", USERS)
async def test_the_matrix(here: Here, name: str, verb: str) -> None:
    async with Talk(here.address) as root:
        assert await root.ask(b"AUTH", b"root", b"root") == b"OK"
        for number, kind in KINDS.items():
            for words in ASKED[verb]:
                stored = await root.ask(b"NEW", b"%d" % number, b"a secret record")
                assert await root.ask(b"FAIL", stored) == b"OK"
                async with Talk(here.address) as client:
                    # Whoever lost a right meanwhile holds what he opened: the right is asked of each operation.
                    assert await client.ask(b"AUTH", b"root", b"root") == b"OK"
                    held = await client.ask(b"NEW", b"%d" % number)
                    assert await client.ask(b"AUTH", name.encode(), name.encode()) == b"OK"
                    filled = {b"{kind}": b"%d" % number, b"{name}": kind.name.encode(), b"{held}": held}
                    filled[b"{stored}"] = stored
                    seq = here.node.machine.seq
                    answer = await client.ask(verb.encode(), *(filled.get(word, word) for word in words))
                    about = number if words and words[-1] not in (b"0123456789abcdef", b"name") else None
                    refused = isinstance(answer, str) and answer.startswith("NOPERM")
                    if verb == "KINDS":  # judged where it is taken: on a connection that the pipe dialled, see below
                        assert str(answer).startswith("ERR KINDS is for handlers")
                        continue
                    assert refused is not may(RIGHTS[name], verb, about), (words, answer)
                    if refused:
                        assert f"user '{name}' may not {verb}" in answer
                        assert f"the right {verb} (or " in answer
                        looked = verb in GROUPS["read"]
                        assert answer.endswith("is missing" if looked else "is missing; nothing was stored")
                        assert here.node.machine.seq == seq


async def test_an_owner_belongs_to_the_user_who_named_it(here: Here) -> None:
    """Although the connection says afterwards that it is somebody else."""
    token = b"0123456789abcdef"
    async with Talk(here.address) as first, Talk(here.address) as thief, Talk(here.address) as again:
        assert await first.ask(b"AUTH", b"writer7", b"writer7") == b"OK"
        assert await first.ask(b"OWNER", token) == []
        held = await first.ask(b"NEW", b"7")
        assert await first.ask(b"AUTH", b"root", b"root") == b"OK"
        assert await thief.ask(b"AUTH", b"root", b"root") == b"OK"
        assert (await thief.ask(b"OWNER", token)).startswith("NOPERM that owner belongs to another user")
        assert await again.ask(b"AUTH", b"writer7", b"writer7") == b"OK"
        assert await again.ask(b"OWNER", token) == [[held, 7, -1, 0]]


async def test_info_of_a_kind_tells_of_no_other(here: Here) -> None:
    async with Talk(here.address) as client:
        assert await client.ask(b"AUTH", b"reader7", b"reader7") == b"OK"
        assert (await client.ask(b"INFO")).startswith("NOPERM")
        assert (await client.ask(b"INFO", b"KIND", b"eight")).startswith("NOPERM")
        assert (await client.ask(b"INFO", b"KIND", b"nine")).startswith("UNKNOWNKIND")
        assert (await client.ask(b"INFO", b"KIND")).startswith("ERR INFO takes")
        told: bytes = await client.ask(b"info", b"kind", b"seven")
    assert told.decode().splitlines() == [
        "# Sessions",
        "kind_7:name=seven,active=0,stored=0,repeating=0,parked=0",
        "# Handlers",
        "handler_7:out=0,concurrency=64,breaker=closed,paused=0,state=never there",
    ]


@pytest.mark.parametrize("name", USERS)
async def test_a_handler_service_serves_only_the_kinds_it_may(name: str) -> None:
    """The pipe dials it; it says who it is, and KINDS of one, the other, and both."""
    answers: asyncio.Queue[str] = asyncio.Queue()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"AUTH %b %b\r\nKINDS 7\r\nKINDS 8\r\nKINDS 7 8\r\n" % (name.encode(), name.encode()))
        await reader.readuntil(b"\r\n\r\n")  # the empty secret ends the pipe's hello
        for _ in range(4):
            answers.put_nowait((await reader.readline()).decode())
        writer.close()

    listening = await asyncio.start_server(service, "127.0.0.1", 0)
    where = listening.sockets[0].getsockname()
    settings = WireSettings(authenticator=Users(list(USERS.values())))
    route = DialRoute(f"truba://127.0.0.1:{where[1]}", "", settings)
    node = Node(MemoryLog(), MemoryStore(), list(KINDS.values()), {7: route, 8: route})
    await node.start()
    try:
        async with asyncio.timeout(20):
            assert await answers.get() == "+OK\r\n"
            for kinds in ([7], [8], [7, 8]):
                allowed = all(may(RIGHTS[name], "KINDS", kind) for kind in kinds)
                answer = await answers.get()
                assert answer.startswith("+OK" if allowed else "-NOPERM"), (kinds, answer)
                if not allowed:
                    assert "the right KINDS (or handle) on kind " in answer
    finally:
        listening.close()
        await node.stop()


async def test_who_lost_the_right_to_a_kind_is_handed_no_more_of_it() -> None:
    """A reload takes the right from a handler service that is connected, and a later one gives it back."""
    pushed: asyncio.Queue[bytes] = asyncio.Queue()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"AUTH handler7 handler7\r\nKINDS 7\r\n")
        while line := await reader.readline():
            if line in (b"+OK\r\n", b"repeat\r\n", b"the secret\r\n"):
                pushed.put_nowait(line.strip())
        writer.close()

    listening = await asyncio.start_server(service, "127.0.0.1", 0)
    where = listening.sockets[0].getsockname()
    users = Users([user("handler7", RIGHTS["handler7"])])
    route = DialRoute(f"truba://127.0.0.1:{where[1]}", "", WireSettings(authenticator=users))
    node = Node(MemoryLog(), MemoryStore(), [SEVEN], {7: route})
    await node.start()
    try:
        async with asyncio.timeout(20):
            assert [await pushed.get() for _ in range(2)] == [b"+OK", b"+OK"]
            users.replace([user("handler7", [])])
            client = node.presence.attach()
            node.store(node.new(client, 7, [b"the secret"]), 0)
            await node.sequencer.flush()
            await asyncio.sleep(0.05)
            assert pushed.empty()
            users.replace([user("handler7", RIGHTS["handler7"])])
            node.dispatcher.wake()
            assert [await pushed.get() for _ in range(2)] == [b"repeat", b"the secret"]
    finally:
        listening.close()
        await node.stop()
