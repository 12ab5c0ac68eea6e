"""Real pipes for the client's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.peers import RealPipe
from truba.client import remote
from truba.kinds import Backoff

KIND = '[kinds.transfer]\nnumber = 7\nhandler = "truba://127.0.0.1:1"\n'


@pytest.fixture
def pipe_process(tmp_path: Path) -> Iterator[Callable[..., RealPipe]]:
    """Makes and starts a pipe; killed at the end."""
    made: list[RealPipe] = []

    def make(config: str = KIND) -> RealPipe:
        made.append(RealPipe(tmp_path / f"pipe-{len(made)}", config).start())
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def redial_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REDIAL", Backoff(0.002, 1.0, 0.002))
