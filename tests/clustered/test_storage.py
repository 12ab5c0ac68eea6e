"""What a node keeps is replaced by what is newer, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.played import SECRET, Played, opened
from truba.cluster.words import Exported
from truba.clustered.storage import NodeStorage
from truba.errors import Unavailable
from truba.ports.store import Summary, staged_all
from truba.store.rocks import RocksStore
from truba.testing.log import batch, commit
from truba.types import Position

LOG_ID = bytes(range(16))


def exported(scratch: Path, position: Position) -> dict[str, bytes]:
    """The files of a checkpoint at that place."""
    store = RocksStore.open(scratch / "peer")
    try:
        store.commit(staged_all(store, ()), Summary(position, {}))
        store.export(scratch / "exported")
    finally:
        store.close()
    return {file.name: file.read_bytes() for file in (scratch / "exported").iterdir()}


async def test_a_checkpoint_that_is_older_than_the_own_log_is_not_taken(tmp_path: Path) -> None:
    """A peer that is ahead may yet be unable to write a new one."""
    host = Played(seq=100)
    position = Position(1, 2, bytes(16))
    host.exported = Exported(LOG_ID, position, b"")
    host.files = exported(tmp_path, position)
    async with opened(host, tmp_path / "scratch") as door:
        storage = NodeStorage(tmp_path / "data", LOG_ID, {"b": door.bound}, SECRET, segment_bytes=1 << 20)
        try:
            await commit(storage.log, batch(1), batch(2), batch(3))
            tail = storage.log.tail
            with pytest.raises(Unavailable, match="no peer gives a checkpoint beyond event 3"):
                await storage.replace()
            assert storage.log.tail == tail
        finally:
            storage.close()
