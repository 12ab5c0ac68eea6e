"""Both stores keep the port's contract, and agree under random histories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from truba.ports.store import Store
from truba.store.memory import MemoryStore
from truba.store.rocks import RocksStore
from truba.testing.store import Reopen, StoreSuite


class TestMemoryStore(StoreSuite):
    keeps_when_closed = False

    @pytest.fixture
    def reopen(self) -> Reopen:
        return MemoryStore


class TestRocksStore(StoreSuite):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Iterator[Reopen]:
        opened: list[Store] = []

        def open_again() -> Store:
            while opened:
                opened.pop().close()
            opened.append(RocksStore.open(tmp_path / "store"))
            return opened[0]

        yield open_again
        for store in opened:
            store.close()
