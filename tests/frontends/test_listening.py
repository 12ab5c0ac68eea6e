"""Sockets that outlive who serves them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.frontends.cluster import Place, Talk, place
from truba.config.model import Node
from truba.frontends.listening import Listen, bind
from truba.wire.connection import WireSettings


async def test_one_frontend_serves_one_node_after_the_other_on_the_same_sockets(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with place(unix=path) as here:
        for _ in range(3):
            node = await here.lead()
            async with Talk(here.address) as tcp:
                assert await tcp.ask(b"NEW", b"7", b"r") == b"1-2"
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b"ping\r\n")
            assert await reader.readline() == b"+PONG\r\n"
            await here.rest()
            assert await reader.read() == b""
            writer.close()
            assert node is not here.node
            assert path.exists()


async def test_the_largest_buffer_that_a_configuration_may_ask_for() -> None:
    """Above it uvloop refuses each connection, and the client would wait for ever."""
    most = Node.model_validate({"output_bytes_max": "1GiB"}).output_bytes_max
    here = Place(await bind(Listen("127.0.0.1:0")), WireSettings(output_bytes_max=most))
    try:
        await here.lead()
        async with Talk(here.address) as client:
            assert await client.ask(b"PING") == b"PONG"
    finally:
        here.listening.close()
        await here.rest()


async def test_who_comes_between_two_roles_waits_and_is_served() -> None:
    async with place() as here:
        await here.lead()
        await here.rest()
        async with Talk(here.address) as early:
            early.send(b"PING")
            await here.lead()
            assert await early.answer() == b"PONG"


async def test_what_is_closed_refuses_and_its_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listening = await bind(Listen("127.0.0.1:0", path))
    assert listening.bound is not None
    listening.close()
    listening.close()
    assert not path.exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*listening.bound)


async def test_addresses_that_cannot_be_had(tmp_path: Path) -> None:
    path = tmp_path / "s"
    here = await bind(Listen("127.0.0.1:0", path))
    try:
        assert here.bound is not None
        with pytest.raises(
            OSError, match=rf"^\[Errno 98\] cannot listen on 127.0.0.1:{here.bound[1]}: Address already"
        ):
            await bind(Listen(f"127.0.0.1:{here.bound[1]}"))
        with pytest.raises(OSError, match="another process listens there"):
            await bind(Listen(None, path))
        (tmp_path / "plain").touch()
        with pytest.raises(OSError, match="there is a file of that name"):
            await bind(Listen(None, tmp_path / "plain"))
        assert path.exists()
        assert (tmp_path / "plain").exists()
    finally:
        here.close()


async def test_a_socket_file_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = await bind(Listen(None, path))
    path.rename(tmp_path / "kept")
    first.close()
    (tmp_path / "kept").rename(path)
    second = await bind(Listen(None, path))
    assert path.stat().st_mode & 0o777 == 0o600
    second.close()


async def test_one_connection_too_many_is_told_so() -> None:
    async with place(connections_max=1) as here:
        for follow in (False, True):
            if follow:
                await here.follow(None)
            else:
                await here.lead()
            async with Talk(here.address) as one, Talk(here.address) as two:
                one.send(b"LEADER")
                await one.answer()
                assert (await two.answer()).startswith("BUSY the pipe has 1 connections")
                assert await two.ended()
