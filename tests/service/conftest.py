"""Pipes as processes for each test, and one that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.process import Server, Servers, servers
from tests.service.wire import Listener


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Servers]:
    yield from servers(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A pipe with kind 7 over TCP and a Unix socket, for tests that leave it as they found it."""
    for pipes in servers(tmp_path_factory.mktemp("shared")):
        yield pipes.start(node=f'unix = "{pipes.directory}/truba.sock"')


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as made:
        yield made
