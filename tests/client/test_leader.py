"""A client of a cluster: any node will do, and when the leader changes it finds the new one."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

import truba
from tests.client.inprocess import until
from tests.client.scripted import Scripted, pleased
from tests.frontends.cluster import Place, place
from truba.address import Address
from truba.client import remote
from truba.client.admin import Admin
from truba.kinds import Backoff
from truba.log.memory import MemoryLog, Shelf
from truba.store.memory import MemoryStore
from truba.tls import connect as tls_connect


def naming(whom: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(whom), whom.encode())


async def test_the_leader_is_talked_to_itself() -> None:
    async with place() as leader, place() as follower:
        await leader.lead()
        await follower.follow(leader.address)
        async with truba.connect(follower.url) as client:
            await client.new(7)
            assert len(leader.resp.connections) == 1
            await follower.rest()  # nobody relays
            await client.new(7)
        async with Admin.over(leader.url) as admin:
            assert [info.records async for info in admin.ls()] == [0, 0]


async def test_a_leader_that_cannot_be_reached_from_here_is_reached_through_the_one_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with place() as leader, place() as follower, place() as hidden:
        await leader.lead()
        hidden.listening.close()
        await follower.follow(leader.address)
        # As behind a firewall: the name that the client is told leads nowhere for it.
        monkeypatch.setattr(Address, "__str__", lambda self: f"{hidden.address[0]}:{hidden.address[1]}")
        async with truba.connect(f"truba://127.0.0.1:{follower.address.port}") as client:
            session = await client.new(7, b"r")
            assert len(follower.relay._reception.guests) == 1  # noqa: SLF001
            await session.delete()
        async with Admin.over(f"truba://127.0.0.1:{follower.address.port}") as admin:
            await admin.ping()


async def test_nodes_that_name_each_other_are_left_after_a_few_hops() -> None:
    names: dict[str, str] = {}

    def lost(mine: str) -> Scripted:
        return Scripted(lambda request: naming(names[mine]) if request[0] == b"LEADER" else pleased(request))

    async with lost("a") as a, lost("b") as b:
        names.update(a=b.url.removeprefix("truba://"), b=a.url.removeprefix("truba://"))
        with pytest.raises(truba.Unavailable, match="the nodes do not agree on who leads"):
            await truba.connect(a.url, connect_timeout_s=0)
        assert a.connections + b.connections == 4
        await until(lambda: not a.transports and not b.transports)


@pytest.mark.parametrize("answer", [b"+OK\r\n", b"$5\r\nwhere\r\n", b":99999999999999\r\n", b"*1\r\n:1\r\n"])
async def test_who_names_nonsense_is_no_pipe(answer: bytes) -> None:
    async with Scripted(lambda request: answer) as peer:
        with pytest.raises(truba.Unavailable, match="what answers is no pipe"):
            await truba.connect(peer.url, connect_timeout_s=0)


async def test_an_older_pipe_leads() -> None:
    def older(request: list[bytes]) -> bytes:
        return b"-ERR unknown command 'LEADER'; nothing was stored\r\n" if request[0] == b"LEADER" else pleased(request)

    async with Scripted(older) as peer, truba.connect(peer.url) as client:
        await client.new(7)
        assert peer.connections == 1


async def test_a_password_goes_along() -> None:
    async with Scripted(pleased) as leader:
        whom = leader.url.removeprefix("truba://")
        async with Scripted(lambda request: naming(whom)) as follower:
            url = follower.url.replace("truba://", "truba://ann:hush@")
            async with truba.connect(url) as client:
                await client.new(7)
            assert [request[0] for request in follower.said] == [b"LEADER"]
            assert leader.said[:2] == [[b"LEADER"], [b"AUTH", b"ann", b"hush"]]


@pytest.mark.parametrize("insecure", [False, True])
async def test_a_leader_beyond_this_machine_is_not_dialled_in_plain_text(
    monkeypatch: pytest.MonkeyPatch, insecure: bool
) -> None:
    """Unless that was said to be right: the connection at hand relays, whatever it was told."""
    dialled: list[str] = []

    async def connect(make: Callable[[], Any], host: str, port: int, tls: Any) -> Any:
        dialled.append(host)
        if host != "127.0.0.1":
            raise ConnectionRefusedError
        return await tls_connect(make, host, port, tls)

    monkeypatch.setattr("truba.client.target.connect", connect)
    answers = lambda request: naming("192.0.2.1:7433") if request[0] == b"LEADER" else pleased(request)  # noqa: E731
    async with Scripted(answers) as follower, truba.connect(follower.url, insecure=insecure) as pipe:
        await pipe.new(7)
    assert dialled == ["127.0.0.1"] + ["192.0.2.1"] * insecure


async def test_a_node_that_falls_silent_is_left_for_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a host that loses its power: nothing closes the connection, and nothing that is sent there is answered."""
    monkeypatch.setattr(remote, "SILENCE_S_MAX", 0.2)
    dead = False

    async with Scripted(lambda request: None if dead else pleased(request)) as one, Scripted(pleased) as two:
        async with truba.connect([one.url, two.url], timeout_s=60, grace_s=60) as client:
            await client.new(7)
            dead = True
            async with asyncio.timeout(2):  # less than it takes to dial the dead one again
                await client.request(b"PING", read=True)
            assert two.connections == 1
        dead = False
        async with truba.connect(one.url, timeout_s=60, grace_s=60) as client:
            await client.new(7)
            dead = True
            with pytest.raises(TimeoutError):  # a pipe that is alone is waited for
                async with asyncio.timeout(0.5):
                    await client.request(b"PING", read=True)
            assert one.connections == 2


@pytest.mark.parametrize("word", ["NOTLEADER ask another", "UNAVAILABLE no node of the cluster leads now"])
@pytest.mark.parametrize("verb", [b"LEADER", b"OWNER"])
async def test_who_knows_no_leader_is_asked_again_soon(word: str, verb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REDIAL", Backoff(60.0, 1.0, 60.0))
    monkeypatch.setattr(remote, "SOON_S", 0.01)
    asked = 0

    def electing(request: list[bytes]) -> bytes:
        nonlocal asked
        asked += request[0] == verb
        return f"-{word}\r\n".encode() if request[0] == verb and asked < 4 else pleased(request)

    async with Scripted(electing) as peer, truba.connect(peer.url, connect_timeout_s=5) as client:
        await client.new(7)
        assert peer.connections == 4


async def test_a_dead_address_costs_no_pause_while_others_know_no_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REDIAL", Backoff(60.0, 1.0, 60.0))
    monkeypatch.setattr(remote, "SOON_S", 0.01)
    asked = 0

    def electing(request: list[bytes]) -> bytes:
        nonlocal asked
        asked += request[0] == b"LEADER"
        return b"-UNAVAILABLE nobody\r\n" if request[0] == b"LEADER" and asked < 6 else pleased(request)

    async with place() as dead, Scripted(electing) as peer:
        dead.listening.close()
        urls = [f"truba://127.0.0.1:{dead.address.port}", peer.url, f"truba://127.0.0.1:{dead.address.port}"]
        async with truba.connect(urls, connect_timeout_s=5) as client:
            await client.new(7)
    assert asked == 6


async def test_where_nobody_answers_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REDIAL", Backoff(60.0, 1.0, 60.0))
    async with place() as dead:
        dead.listening.close()
        url = f"truba://127.0.0.1:{dead.address.port}"
        with pytest.raises(truba.Unavailable, match="nothing was sent"):
            async with asyncio.timeout(2):  # a pause of half a minute is beyond its patience: it gives up at once
                await truba.connect([url, url, url], connect_timeout_s=5)


async def test_work_goes_on_through_changes_of_the_leader(redial_at_once: None) -> None:
    """Two addresses take turns to lead on one log, by death and by step-down; nothing is lost or doubled."""
    dice = random.Random(4)
    shelf, store = Shelf(), MemoryStore()
    async with place() as one, place() as two:
        places = [one, two]

        async def change(leader: Place, follower: Place) -> None:
            await follower.follow(None)
            await leader.lead(MemoryLog(shelf), store)
            await follower.follow(leader.address)

        await change(one, two)
        async with truba.connect([one.url, two.url], grace_s=60) as client:

            async def work(number: int) -> tuple[truba.Index, list[bytes]]:
                session = await client.new(7)
                records = [b"%d-%d" % (number, step) for step in range(20)]
                for record in records:
                    await session.append(record)
                    await asyncio.sleep(dice.random() * 0.02)
                return session.id, records

            working = asyncio.gather(*(work(number) for number in range(20)))
            for turn in range(1, 6):
                await asyncio.sleep(0.05)
                new, old = places[turn % 2], places[(turn + 1) % 2]
                if turn % 2 and old.node is not None:  # it dies in the middle of things
                    old.node.give_up(RuntimeError("killed"))
                    for connection in old.resp.connections:
                        assert connection.transport is not None
                        connection.transport.abort()
                await old.follow(None)
                await asyncio.sleep(0.02)  # nobody leads
                await change(new, old)
            done = await working
            leader = next(here for here in places if here.node is not None)
            assert leader.node is not None
            for session_id, records in done:
                assert list(leader.node.machine.records(session_id.seq)) == records


@pytest.mark.parametrize("answer", [b"*1000000000\r\n", b"%500000000\r\n", b"$1000000000\r\n", b"+OK\r\n" * 100])
async def test_what_answers_is_not_believed(answer: bytes) -> None:
    """Lists of a length that nobody could send, answers to what was never asked: no pipe, and not worth its memory."""
    async with Scripted(lambda request: answer) as peer:
        tracemalloc.start()
        try:
            with pytest.raises(truba.Unavailable):
                await truba.connect(peer.url, connect_timeout_s=0)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 1 << 20
