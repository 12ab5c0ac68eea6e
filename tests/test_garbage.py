"""The collector in a process that serves: seldom, and nothing of the pipe's own waits for it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from tests.client.inprocess import until
from tests.frontends.cluster import Talk, place
from truba.garbage import collected_rarely
from truba.node.node import Node


def test_it_is_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyError), collected_rarely():  # noqa: PT012 - the error comes out of the block
        assert gc.get_threshold() != before
        raise KeyError
    assert gc.get_threshold() == before


@pytest.fixture
def nothing_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("named", [False, True], ids=["nameless", "named"])
@pytest.mark.parametrize("how", ["hangs up", "quits", "is refused"])
@pytest.mark.usefixtures("nothing_collected")
async def test_a_connection_leaves_nothing_that_only_the_collector_frees(named: bool, how: str) -> None:
    """Else a full collection, which nobody has time for, would be needed now and then all the same."""
    async with place() as here:
        node = await here.lead()
        await _live(here.address, node, named, how, 0)  # what is made once
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await _live(here.address, node, named, how, 1)
            gc.collect()
            left = [type(each).__name__ for each in gc.garbage if type(each).__module__.startswith("truba.")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
        assert left == []


async def _live(address: object, node: Node, named: bool, how: str, number: int) -> None:
    """A connection's whole life: one session deleted, one kept, and lost with it."""
    async with Talk(address) as client:  # type: ignore[arg-type]
        if named:
            await client.ask(b"OWNER", b"a token of owner %016d" % number, b"GRACE", b"0")
        done, kept = await client.ask(b"NEW", b"7", b"a"), await client.ask(b"NEW", b"7", b"a")
        assert await client.ask(b"APPEND", done, b"b") == b"OK"
        assert await client.ask(b"DELETE", done) == b"OK"
        assert int(kept.partition(b"-")[2]) in node.machine.owned
        if how == "quits":
            await client.ask(b"QUIT")
        elif how == "is refused":
            await client.ask(b"NO SUCH COMMAND")
    await until(lambda: not node.machine.owned)
    await asyncio.sleep(0)
