"""Tests that do nothing but wait for most of their time: begun with the first test of their file, on a thread, so that
the wait goes by beside the others. What they check, and how long they wait at most, is as it would be without that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.service.process import Servers, servers


def beside(
    request: pytest.FixtureRequest, name: str, directory: Path, body: Callable[[Servers], None]
) -> Iterator[Callable[[], None]]:
    """The body of a fixture of the module's scope, used by itself: what it gives waits for `body`, and raises what
    went wrong there. Only when a test of that name is to be run; it has pipes of its own in `directory`."""
    begun: list[Future[None]] = []

    def whole() -> None:
        for pipes in servers(directory):
            body(pipes)

    with ThreadPoolExecutor(1) as pool:
        if any(item.name == name and item.path == request.path for item in request.session.items):
            begun.append(pool.submit(whole))
        yield lambda: begun[0].result()
