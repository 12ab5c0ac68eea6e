"""A handler service: says its address, serves until its stdin ends."""

from __future__ import annotations

import asyncio
import sys

import truba
from bench.scale.child import say_result
from bench.scale.parts.deliver import handle
from bench.scale.pipes import CONCURRENCY, SERVICE


async def measure() -> None:
    async with truba.serve_handlers({SERVICE: handle}, "127.0.0.1:0", credit=CONCURRENCY) as server:
        say_result({"address": str(server.address)})
        await asyncio.to_thread(sys.stdin.read)
