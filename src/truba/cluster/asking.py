"""Asking more than once at a time: for questions that change nothing, to an engine whose leader may just have died."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

AGAIN_S = 0.25
"""What was sent to a dead leader never gets an answer, and a question's timeout is long, for leaders that are slow.
Asked again meanwhile, a new leader is heard of as soon as there is one."""


async def asked(ask: Callable[[], Coroutine[Any, Any, T]], again_s: float = AGAIN_S) -> T:
    """What comes first, an answer or an error, of questions asked every `again_s`. The others are dropped."""
    asking: list[asyncio.Task[T]] = []
    try:
        while True:
            asking.append(asyncio.create_task(ask()))
            await asyncio.wait(asking, timeout=again_s, return_when=asyncio.FIRST_COMPLETED)
            if done := [task for task in asking if task.done()]:
                return min(done, key=lambda task: task.exception() is not None).result()
    finally:
        for task in asking:
            task.cancel()
