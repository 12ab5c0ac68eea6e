"""Servers for the tests of a module, and streams on them that are new for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from truba.testing.nats import NatsServers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    """One nats-server."""
    servers = asyncio.run(NatsServers.start(tmp_path_factory.mktemp("nats"), 1))
    yield servers
    servers.end()


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    """Three of them in a cluster."""
    servers = asyncio.run(NatsServers.start(tmp_path_factory.mktemp("nats3"), 3))
    yield servers
    servers.end()
