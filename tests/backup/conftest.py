"""Pipes as processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.process import Servers, servers


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Servers]:
    yield from servers(tmp_path)
