"""Handlers of the pipes that these tests look at."""

from __future__ import annotations

import asyncio

import truba

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> <script>document.title='owned'</script>"


async def fails(repeat: truba.RepeatData) -> None:
    if repeat.records[-1] == b"mended":
        return
    raise RuntimeError(f"no such account {HOSTILE}")


async def refuses(repeat: truba.RepeatData) -> None:
    raise LookupError("no such account: B-1932")


async def holds(repeat: truba.RepeatData) -> None:
    await asyncio.Event().wait()


async def finishes(repeat: truba.RepeatData) -> None:
    await asyncio.sleep(0.05)
