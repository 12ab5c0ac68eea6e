"""Clusters for the tests of members."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import pytest

from tests.cluster.world import Led, led_by_one
from truba.testing.jump import JumpClock


@pytest.fixture
def led(jump: Callable[[Coroutine[object, object, None]], None], clock: JumpClock) -> Led:
    """Run a coroutine with a cluster and its leader, in jumping time."""
    return lambda main, **options: jump(led_by_one(main, clock, **options))
