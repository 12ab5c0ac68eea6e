"""`resume` and `remove` of every pipe: an id is an Index or its text, and anything else is refused in plain words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import truba
from tests.client.inprocess import SEVEN, served
from tests.client.peers import RealPipe

MakePipe = Callable[..., RealPipe]
MANY_S = 1_000_000


async def nobody(repeat: truba.RepeatData) -> None:
    raise RuntimeError("not to be called")


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[truba.Pipe]:
    kind = truba.Kind(7, "transfer", nobody, recovery_delay_s=MANY_S)
    async with truba.open(directory / "data", kinds=[kind]) as pipe:
        yield pipe


@asynccontextmanager
async def remote(directory: Path) -> AsyncIterator[truba.Pipe]:
    async with served(SEVEN) as here, truba.connect(here.url) as pipe:
        yield pipe


@pytest.mark.parametrize("opened", [embedded, remote])
async def test_an_id_is_an_index_or_its_text(opened: Any, tmp_path: Path) -> None:
    async with opened(tmp_path) as pipe:
        for named in (lambda index: index, str):
            session = await pipe.new(7, b"a")
            with pytest.raises(truba.Busy):
                await pipe.resume(named(session.id))
            await session.store(MANY_S)
            await pipe.remove(named(session.id))
            for gone in (pipe.remove, pipe.resume):
                with pytest.raises(truba.NoSession):
                    await gone(named(session.id))
        for act in (pipe.remove, pipe.resume):
            for wrong, said in (
                ("text", "not an id: 'text'; ids look like 3-117; nothing was changed"),
                ("3-117@1", "not an id: '3-117@1'"),
                (b"3-117", "not bytes; nothing was changed"),
                (3, "not int"),
                (None, "not NoneType"),
                ((3, 117), "not tuple"),
            ):
                with pytest.raises(truba.BadRequest, match=said):
                    await act(wrong)


@pytest.mark.parametrize("opened", [embedded, remote])
async def test_a_kind_is_paused_and_continued(opened: Any, tmp_path: Path) -> None:
    async with opened(tmp_path) as pipe:
        for act in (pipe.pause_kind, pipe.continue_kind):
            await act(7)
            await act(7)
            with pytest.raises(truba.UnknownKind, match="no kind 9 is configured; nothing was changed"):
                await act(9)


async def test_nothing_of_a_paused_kind_is_handed_over_until_it_is_continued(tmp_path: Path) -> None:
    handed: asyncio.Queue[truba.RepeatData] = asyncio.Queue()
    kinds = [truba.Kind(7, "transfer", handed.put), truba.Kind(8, "mail", handed.put)]
    async with truba.open(tmp_path / "data", kinds=kinds) as pipe:
        await pipe.pause_kind(7)
    async with truba.open(tmp_path / "data", kinds=kinds) as pipe:
        for kind in (7, 8):
            await (await pipe.new(kind, b"a")).store(0)
        assert (await asyncio.wait_for(handed.get(), 20)).kind == 8  # the other one's turn came first
        assert handed.empty()
        await pipe.continue_kind(7)
        assert (await asyncio.wait_for(handed.get(), 20)).kind == 7


async def test_a_resumed_session_is_handed_over(tmp_path: Path) -> None:
    handed: asyncio.Queue[truba.RepeatData] = asyncio.Queue()
    async with truba.open(tmp_path / "data", kinds=[truba.Kind(7, "transfer", handed.put)]) as pipe:
        session = await pipe.new(7, b"a")
        await session.store(MANY_S)
        await pipe.resume(str(session.id))
        repeat = await asyncio.wait_for(handed.get(), 20)
        assert (repeat.session.id, repeat.cause) == (session.id, truba.Cause.RESUMED)


def test_without_async(pipe_process: MakePipe) -> None:
    with truba.sync.connect(pipe_process().url) as pipe:
        session = pipe.new(7, b"a")
        session.store(MANY_S)
        with pytest.raises(truba.BadRequest, match="not an id: 'text'"):
            pipe.remove("text")
        pipe.resume(session.id)
        pipe.remove(str(session.id))
        with pytest.raises(truba.NoSession):
            pipe.resume(session.id)
        pipe.pause_kind(7)
        pipe.continue_kind(7)
        with pytest.raises(truba.UnknownKind):
            pipe.pause_kind(999)
