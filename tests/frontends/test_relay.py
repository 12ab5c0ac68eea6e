"""Bytes through a node that does not lead: all, unchanged, bounded, and no answer that the leader did not give."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import subprocess
from functools import partial
from shutil import which

import pytest
import redis

from tests.client.inprocess import until
from tests.frontends.cluster import Place, Talk, place
from tests.frontends.played import Leader
from truba.auth import SharedPassword
from truba.frontends import relay
from truba.frontends.listening import Listen, bind
from truba.protocols.resp import StrictParser
from truba.wire.connection import WireSettings

MIB = 1 << 20
NOBODY = "UNAVAILABLE no node of the cluster leads now, as far as this one knows; nothing was stored; try again"


# -- with a real node that leads ---------------------------------------------------------------------------------


async def test_everything_that_is_asked_is_answered_as_by_the_leader() -> None:
    async with place() as leader, place() as follower:
        await leader.lead()
        await follower.follow(leader.address)
        async with Talk(follower.address) as client, Talk(leader.address) as direct:
            big = random.Random(1).randbytes(MIB)
            requests = [
                (b"HELLO", b"3"), (b"PING",), (b"NEW", b"7", b"TAG", b"5", big), (b"APPEND", b"1-2", b"a", b"b"),
                (b"REPLACE", b"1-2", big), (b"SHOW", b"1-2"), (b"NONSENSE",), (b"LEADER",), (b"DELETE", b"1-2"),
            ]  # fmt: skip
            for request in requests:
                client.send(*request)
            said = [await client.answer() for _ in requests]
            assert said[1] == b"PONG"
            assert said[2:5] == [b"1-2", b"OK", b"OK"]
            shown = said[5]
            assert shown[b"records"] == [big]
            assert said[6].startswith("ERR unknown command")
            assert said[7:] == [None, b"OK"]  # a relayed connection is the leader's, LEADER included
            assert await direct.ask(b"LEADER") is None


async def test_a_kind_is_paused_by_way_of_a_node_that_follows() -> None:
    async with place() as leader, place() as follower:
        node = await leader.lead()
        await follower.follow(leader.address)
        async with Talk(follower.address) as client:
            assert await client.ask(b"PAUSE", b"seven") == b"OK"
            assert node.operators.paused == ["seven"]
            assert b"paused=1," in await client.ask(b"INFO", b"KIND", b"7")
            assert await client.ask(b"CONTINUE", b"7") == b"OK"
            assert node.operators.paused == []
            assert (await client.ask(b"PAUSE", b"nine")).startswith("UNKNOWNKIND")


async def test_who_leads_is_told_here_as_often_as_it_is_asked() -> None:
    leader = Leader()
    async with leader.running() as address, place() as follower:
        await follower.follow(None)
        async with Talk(follower.address) as client:
            assert (await client.ask(b"LEADER")).startswith(NOBODY)
            await follower.follow(address)
            client.writer.write(b"leader\r\n\r\n*0\r\n*1\r\n$6\r\nLeader\r\n*1\r\n$6")
            assert [await client.answer(), await client.answer()] == [str(address).encode()] * 2
            client.writer.write(b"\r\nLEADER\r\n")
            assert await client.answer() == str(address).encode()
            assert leader.connections == 0
            client.writer.write(b"*1\r\n$6\r\nLEADER\r\n*1\r\n$4\r\nPI")
            assert await client.answer() == str(address).encode()
            client.writer.write(b"NG\r\n*1\r\n$6\r\nLEADER\r\n")
            reader, _ = await leader.accept()
            whole = b"*1\r\n$4\r\nPING\r\n*1\r\n$6\r\nLEADER\r\n"
            assert await reader.readexactly(len(whole)) == whole  # from the first other request on, as it came


async def test_a_password_is_the_leaders_business() -> None:
    guarded = WireSettings(authenticator=SharedPassword("hush"))
    listening = await bind(Listen("127.0.0.1:0"))
    leader = Place(listening, guarded)
    async with place() as follower:
        await leader.lead()
        await follower.follow(leader.address)
        async with Talk(follower.address) as client:
            assert await client.ask(b"LEADER") == str(leader.address).encode()
            assert (await client.ask(b"PING")).startswith("NOAUTH")
            assert await client.ask(b"AUTH", b"hush") == b"OK"
            assert await client.ask(b"PING") == b"PONG"
    listening.close()
    await leader.rest()


@pytest.mark.skipif(which("redis-cli") is None, reason="redis-cli is not there: apt install redis-tools")
async def test_foreign_clients_with_pipelines() -> None:
    async with place() as leader, place() as follower:
        await leader.lead()
        await follower.follow(leader.address)
        requests = "NEW 7 bulk\r\n" * 2_000 + "NEW 9 nothing\r\n" * 3
        host, port = follower.address
        piped = await asyncio.to_thread(
            partial(
                subprocess.run, ["redis-cli", "-h", host, "-p", str(port), "--pipe"],
                input=requests, capture_output=True, text=True, timeout=60, check=False,
            )
        )  # fmt: skip
        assert "errors: 3, replies: 2003" in piped.stdout + piped.stderr

        def pipelined() -> list[object]:
            with redis.Redis(host, port, protocol=3) as client, client.pipeline(transaction=False) as pipeline:
                for _ in range(500):
                    pipeline.execute_command("NEW", 7, b"x" * 1000)
                return list(pipeline.execute())

        assert len(set(await asyncio.to_thread(pipelined))) == 500


async def test_roles_change_on_one_address() -> None:
    """Leads, relays, leads again; what is asked in between waits or is refused, and never lands with the wrong one."""
    async with place() as here, place() as there:
        await here.lead()
        async with Talk(here.address) as before:
            assert await before.ask(b"NEW", b"7", b"first") == b"1-2"
            await there.lead()
            await here.follow(there.address)
            assert await before.ended()
        async with Talk(here.address) as relayed:
            assert await relayed.ask(b"NEW", b"7", b"second") == b"1-2"
            assert there.node is not None
            assert [list(there.node.machine.records(2))] == [[b"second"]]
            await here.lead()
            assert await relayed.ended()
        async with Talk(here.address) as again:
            assert await again.ask(b"LEADER") is None
            assert await again.ask(b"NEW", b"7", b"third") == b"1-2"
            assert here.node is not None
            assert [list(here.node.machine.records(2))] == [[b"third"]]


# -- nobody leads, or nobody who can be reached ----------------------------------------------------------------------


async def refused(follower: Place, why: str) -> None:
    async with Talk(follower.address) as client:
        for _ in range(10):
            client.send(b"NEW", b"7", b"x" * 1000)
        said = await client.answer()
        assert said.startswith("UNAVAILABLE ")
        assert why in said
        assert "nothing was stored; try again, or another node" in said
        assert await client.ended()


async def test_nobody_leads() -> None:
    async with place() as follower:
        await follower.follow(None)
        await refused(follower, "no node of the cluster leads now")


async def test_the_leader_is_not_there() -> None:
    gone = await bind(Listen("127.0.0.1:0"))
    async with place() as follower, place() as nobody:
        nobody.listening.close()
        gone.close()
        await follower.follow(nobody.address)
        await refused(follower, "cannot be reached from here")


async def test_the_leader_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "JOIN_S_MAX", 0.05)
    async with Leader(None).running() as address, place() as follower:
        await follower.follow(address)
        await refused(follower, "no answer within 0.05 s")


async def test_two_that_take_each_other_for_the_leader_do_not_relay_in_a_circle() -> None:
    async with place() as one, place() as two:
        await one.follow(two.address)
        await two.follow(one.address)
        await refused(one, "it does not lead")
        await two.follow(None)
        await refused(one, "it does not lead: -UNAVAILABLE no node of the cluster")


async def test_the_leader_changes_while_it_is_dialled() -> None:
    async with Leader(None).running() as address, place() as leader, place() as follower:
        await leader.lead()
        await follower.follow(address)
        async with Talk(follower.address) as client:
            client.send(b"PING")
            await until(lambda: any(guest_state(guest) == "joining" for guest in guests(follower)))
            await follower.follow(leader.address)
            assert "has just changed; nothing was stored" in await client.answer()
            assert await client.ended()
        async with Talk(follower.address) as client:
            assert await client.ask(b"PING") == b"PONG"


def guests(follower: Place) -> list[object]:
    return list(follower.relay._reception.guests)  # noqa: SLF001 - nothing outside tells that it is being dialled


def guest_state(guest: object) -> object:
    return guest._state  # type: ignore[attr-defined]  # noqa: SLF001


# -- endings ---------------------------------------------------------------------------------------------------------


async def test_a_client_that_has_said_all_still_gets_its_answers() -> None:
    leader = Leader()
    async with leader.running() as address, place() as follower:
        await follower.follow(address)
        async with Talk(follower.address) as client:
            client.writer.write(b"one two\r\n")
            client.writer.write_eof()
            reader, writer = await leader.accept()
            assert await reader.read() == b"one two\r\n"
            writer.write(b"+late\r\n")
            writer.close()
            assert await client.answer() == b"late"
            assert await client.ended()


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_the_leader_ends_and_no_answer_is_made_up(how: str) -> None:
    leader = Leader()
    async with leader.running() as address, place() as follower:
        await follower.follow(address)
        async with Talk(follower.address) as client:
            client.send(b"NEW", b"7", b"perhaps")
            _, writer = await leader.accept()
            getattr(writer.transport, how)()
            assert await client.ended()
        await until(lambda: not guests(follower))


async def test_the_client_vanishes_and_so_does_its_connection_to_the_leader() -> None:
    leader = Leader()
    async with leader.running() as address, place() as follower:
        await follower.follow(address)
        async with Talk(follower.address) as client:
            client.writer.write(b"last words\r\n")
            reader, _ = await leader.accept()
            assert await reader.readline() == b"last words\r\n"
            reset = struct.pack("ii", 1, 0)
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        await until(lambda: not guests(follower))


async def test_another_leader_hangs_up_the_relayed_ones_only() -> None:
    first, second = Leader(), Leader()
    async with first.running() as old, second.running() as new, place() as follower:
        await follower.follow(old)
        async with Talk(follower.address) as relayed, Talk(follower.address) as asking:
            assert await asking.ask(b"LEADER") == str(old).encode()
            relayed.send(b"NEW", b"7")
            reader, writer = await first.accept()
            assert await reader.readexactly(20) == b"*2\r\n$3\r\nNEW\r\n$1\r\n7\r\n"
            await follower.follow(old)  # no change
            writer.write(b"+before\r\n")
            assert await relayed.answer() == b"before"
            await follower.follow(new)
            assert await relayed.ended()
            assert await reader.read() == b""
            assert await asking.ask(b"LEADER") == str(new).encode()
            asking.send(b"PING")
            await second.accept()


# -- slow ends ---------------------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_stops_the_leader_and_loses_nothing() -> None:
    leader = Leader()
    async with leader.running() as address, place() as follower:
        await follower.follow(address)
        async with Talk(follower.address) as client:
            client.writer.transport.pause_reading()
            client.send(b"PING")
            reader, writer = await leader.accept()
            assert await reader.readexactly(14) == b"*1\r\n$4\r\nPING\r\n"
            data = random.Random(2).randbytes(64 * MIB)
            writer.write(data)
            (near,) = guests(follower)
            await until(lambda: near.far is not None and not near.far.transport.is_reading())  # type: ignore[attr-defined]
            assert near.transport.get_write_buffer_size() <= relay.BUFFER_BYTES_MAX + MIB  # type: ignore[attr-defined]
            assert writer.transport.get_write_buffer_size() > 32 * MIB
            client.writer.transport.resume_reading()
            async with asyncio.timeout(60):
                assert await client.reader.readexactly(len(data)) == data


async def test_a_leader_that_does_not_read_stops_the_client_and_loses_nothing() -> None:
    leader = Leader()
    async with leader.running() as address, place() as follower:
        await follower.follow(address)
        async with Talk(follower.address) as client:
            client.send(b"PING")
            reader, writer = await leader.accept()
            assert await reader.readexactly(14) == b"*1\r\n$4\r\nPING\r\n"
            writer.transport.pause_reading()
            data = random.Random(3).randbytes(64 * MIB)
            client.writer.write(data)
            (near,) = guests(follower)
            await until(lambda: not near.transport.is_reading())  # type: ignore[attr-defined]
            assert near.far.transport.get_write_buffer_size() <= relay.BUFFER_BYTES_MAX + MIB  # type: ignore[attr-defined]
            assert client.writer.transport.get_write_buffer_size() > 32 * MIB
            writer.transport.resume_reading()
            async with asyncio.timeout(60):
                assert await reader.readexactly(len(data)) == data


async def test_a_long_first_request_is_passed_on_before_it_is_complete() -> None:
    leader = Leader()
    async with leader.running() as address, place() as follower:
        await follower.follow(address)
        async with Talk(follower.address) as client:
            begin = b"*3\r\n$3\r\nNEW\r\n$1\r\n7\r\n$33554432\r\n" + b"x" * 100
            client.writer.write(begin)
            reader, _ = await leader.accept()
            assert await reader.readexactly(len(begin)) == begin


async def test_nonsense_is_the_leaders_to_judge() -> None:
    async with place() as leader, place() as follower:
        await leader.lead()
        await follower.follow(leader.address)
        async with Talk(follower.address) as client:
            client.writer.write(b"\x16\x03\x01 TLS?")
            assert "looks like TLS" in await client.answer()
            assert await client.ended()


async def test_who_asks_and_asks_and_does_not_read_is_not_read_either() -> None:
    async with place() as follower:
        await follower.follow(None)
        async with Talk(follower.address) as client:
            client.writer.transport.pause_reading()
            client.writer.write(b"*1\r\n$6\r\nLEADER\r\n" * 1_000_000)
            await until(lambda: bool(guests(follower)))
            (near,) = guests(follower)
            await until(lambda: not near.transport.is_reading())  # type: ignore[attr-defined]
            assert near.transport.get_write_buffer_size() < 16 * MIB  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", [False, True])
async def test_who_asks_a_thousand_times_in_one_packet_has_a_turn_among_others(
    monkeypatch: pytest.MonkeyPatch, end: bool
) -> None:
    looked: list[object] = []

    def parser() -> relay.StrictParser:
        looked.append(None)
        return StrictParser()

    monkeypatch.setattr(relay, "StrictParser", parser)
    leader = Leader()
    async with leader.running() as address, place() as follower:
        await follower.follow(address)
        async with Talk(follower.address) as client:
            await until(lambda: bool(guests(follower)))
            (near,) = guests(follower)
            near.data_received(b"\r\n" * 1000 + b"LEADER\r\n" * 1000)  # type: ignore[attr-defined]
            assert len(looked) == relay.PEEKED_AT_ONCE
            if end:
                client.writer.write_eof()
            assert [await client.answer() for _ in range(1000)] == [str(address).encode()] * 1000
            if end:
                assert await client.ended()
            else:
                assert await client.ask(b"LEADER") == str(address).encode()
    assert leader.connections == 0
