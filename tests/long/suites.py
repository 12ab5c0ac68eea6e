"""The suites that can go on for ever: each is a function of a number, which alone decides what is done."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    name: str
    where: str  # module:function
    asserts: str
    share: int = 1  # of the time, beside the others
    listed: bool = False  # the cases are a list, the most different ones first: it is begun at its beginning

    def load(self) -> Callable[[int], None]:
        """The case as a plain function. It raises when something is wrong."""
        module, _, function = self.where.partition(":")
        case = getattr(importlib.import_module(module), function)
        if not inspect.iscoroutinefunction(case):
            return case  # type: ignore[no-any-return]
        return lambda n: asyncio.run(case(n))


SUITES: tuple[Suite, ...] = ()
