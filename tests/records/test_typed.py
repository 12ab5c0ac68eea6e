"""Objects through real pipes: embedded, remote, a handler service, and the twins without async."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import truba
from tests.records.test_codecs import STRUCTS, Credited, Debited
from tests.service.process import Servers, kind, servers
from truba.records import Json

Step = Debited | Credited
PATIENCE_S = 30.0


def embedded_kind(handler: Any, **policy: Any) -> truba.Kind:
    return truba.Kind(7, "transfer", handler, recovery_delay_s=0, jitter_s=0, codec=STRUCTS, **policy)


async def test_embedded(tmp_path: Path) -> None:
    got: asyncio.Queue[truba.TypedRepeat[Step]] = asyncio.Queue()

    async def finish(repeat: truba.TypedRepeat[Step]) -> None:
        await repeat.session.append(Credited("B", 5))
        await got.put(repeat)

    async with truba.open(tmp_path / "data", kinds=[embedded_kind(finish)]) as pipe:
        session = await pipe.new(7, Debited("A", 1), codec=STRUCTS)
        await session.replace(Debited("A", 5))
        with pytest.raises(truba.BadRecord, match="nothing was stored"):
            await session.append(Debited("A", 6), "text")  # type: ignore[arg-type]
        await session.store(0)
        async with asyncio.timeout(PATIENCE_S):
            repeat = await got.get()
        assert list(repeat.records) == [Debited("A", 5)]
        assert (repeat.kind, repeat.attempt, repeat.cause) == (7, 1, truba.Cause.STORED)
        assert (repeat.session.id, repeat.session.epoch) == (session.id, 1)
        assert list(repeat.shown) == ["Debited"]
        assert "shown=[Debited]" in repr(repeat)
        assert "account" not in repr(repeat)
        async with pipe.session(7, Debited("A", 5)) as of_its_kind:  # type: ignore[arg-type] # known when it runs
            assert isinstance(of_its_kind, truba.TypedSession)
        async with pipe.session(7, {"any": "thing"}, codec=Json()) as other:
            await other.append([1])
            assert pipe.node.machine.records(other.id.seq) == [b'{"any":"thing"}', b"[1]"]


async def test_what_a_handler_cannot_read_goes_back_by_policy_and_says_why(tmp_path: Path) -> None:
    parked: asyncio.Queue[truba.ParkedSession] = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)  # that of the handler

    async def finish(repeat: truba.TypedRepeat[Step]) -> None:
        raise AssertionError("it is not called")

    only = embedded_kind(finish, max_attempts=2, backoff=truba.Backoff(0, 1, 0), on_parked=parked.put)
    async with truba.open(tmp_path / "data", kinds=[only]) as pipe:
        session = await pipe.new(7, {"type": "Debited"}, {"type": "Gone", "secret": 1}, codec=Json())
        await session.store(0)
        async with asyncio.timeout(PATIENCE_S):
            told = await parked.get()
        assert told.attempts == 2
        assert "BadRecord: record 1 of 2: 18 bytes are no record of Structs(Debited, Credited)" in told.detail
        assert "secret" not in told.detail


@pytest.fixture
def pipes(tmp_path: Path) -> Any:
    yield from servers(tmp_path)


async def test_remote_and_a_handler_service(pipes: Servers) -> None:
    got: asyncio.Queue[list[Step]] = asyncio.Queue()

    async def finish(repeat: truba.TypedRepeat[Step]) -> None:
        await repeat.session.append(Credited("B", 5))
        await got.put(list(repeat.records))

    def finish_plainly(repeat: truba.sync.TypedRepeat[Step]) -> None:
        repeat.session.append(Credited("B", 5))
        loop.call_soon_threadsafe(got.put_nowait, list(repeat.records))

    @truba.handles(STRUCTS)
    async def finish_decorated(repeat: truba.TypedRepeat[Step]) -> None:
        await finish(repeat)

    loop = asyncio.get_running_loop()
    handlers: dict[int, Any] = {7: finish, 8: finish_plainly, 9: finish_decorated}
    codecs = {7: STRUCTS, 8: STRUCTS}
    async with truba.serve_handlers(handlers, "127.0.0.1:0", codecs=codecs) as service:
        text = "".join(kind(number, f"k{number}", f"truba://{service.address}") for number in handlers)
        server = await asyncio.to_thread(pipes.start, text)
        async with truba.connect(server.url) as pipe, asyncio.timeout(PATIENCE_S):
            for number in handlers:
                session = await pipe.new(number, Debited("A", 1), codec=STRUCTS, tag=number)
                with pytest.raises(truba.BadRecord):
                    await session.append(3)  # type: ignore[arg-type]
                await session.append(Debited("A", 2))
                await session.store(0)
                assert await got.get() == [Debited("A", 1), Debited("A", 2)]
            async with pipe.session(7, codec=STRUCTS) as block:
                await block.append(Debited("A", 3))
            assert block.ended


async def test_codecs_for_kinds_that_nobody_handles_are_refused() -> None:
    async def nobody(repeat: object) -> None: ...

    with pytest.raises(truba.ConfigError, match="kinds without a handler here: 8"):
        truba.serve_handlers({7: nobody}, codecs={8: STRUCTS})


def test_the_twin_without_async(tmp_path: Path) -> None:
    got: queue.Queue[truba.sync.TypedRepeat[Step]] = queue.Queue()

    def finish(repeat: truba.sync.TypedRepeat[Step]) -> None:
        repeat.session.append(Credited("B", 5))
        got.put(repeat)

    with truba.sync.open(tmp_path / "data", kinds=[embedded_kind(finish)]) as pipe:
        session = pipe.new(7, Debited("A", 1), codec=STRUCTS)
        session.replace(Debited("A", 5))
        with pytest.raises(truba.BadRecord):
            session.append("text")  # type: ignore[arg-type]
        session.store(0)
        repeat = got.get(timeout=PATIENCE_S)
        assert (list(repeat.records), repeat.session.id) == ([Debited("A", 5)], session.id)
        with pipe.session(7, Debited("A", 5), codec=STRUCTS) as block:
            block.append(Debited("A", 6))
            assert block.plain.id == block.id
        assert block.ended


TYPES = """
import truba, truba.sync
import msgspec
from truba.ports.records import Codec
from truba.records import Structs

class A(msgspec.Struct, tag=True): ...
class B(msgspec.Struct, tag=True): ...

CODEC: Codec[A | B] = Structs(A, B)

async def finish(repeat: truba.TypedRepeat[A | B]) -> None:
    reveal_type(repeat.records[0])
    await repeat.session.append(A())
    await repeat.session.append(b"")  # wrong

@truba.handles(CODEC)
def finish_plainly(repeat: truba.sync.TypedRepeat[A | B]) -> None:
    repeat.session.append(B())

KIND = truba.Kind(7, "a", finish, codec=CODEC)
OTHER = truba.Kind(8, "b", finish_plainly)

async def main() -> None:
    async with truba.connect("truba://h:1") as pipe:
        session = await pipe.new(7, A(), codec=CODEC)
        reveal_type(session)
        async with pipe.session(7, codec=CODEC) as block:
            await block.append(b"")  # wrong
        async with pipe.session(7, b"plain") as plain:
            await plain.append(A())  # wrong

def twin() -> None:
    with truba.sync.connect("truba://h:1") as pipe, pipe.session(7, codec=CODEC) as session:
        session.append(A())
        session.append(b"")  # wrong
"""


def test_type_checkers_know(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(TYPES)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", root / ".mypy_cache", tmp_path / "example.py"],
        cwd=root / "src", capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    lines = TYPES.splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if "# wrong" in line]
    said = [line.partition("example.py:")[2] for line in done.stdout.splitlines() if "example.py:" in line]
    errors = [int(line.partition(":")[0]) for line in said if " error: " in line]
    assert errors == wrong, done.stdout
    assert any("A | " in line and "B" in line for line in said if "Revealed" in line), done.stdout
    assert any("TypedSession[" in line for line in said if "Revealed" in line), done.stdout
