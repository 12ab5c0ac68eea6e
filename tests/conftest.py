"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import pytest

from truba.testing.jump import JumpClock, run_jumping


@pytest.fixture
def clock() -> JumpClock:
    return JumpClock()


@pytest.fixture
def jump(clock: JumpClock) -> Callable[[Coroutine[object, object, None]], None]:
    """Run a coroutine in jumping time."""
    return lambda main: run_jumping(main, clock)
