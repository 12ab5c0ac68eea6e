"""Handlers, and codecs, of the pipes that these tests look at."""

from __future__ import annotations

import asyncio
import threading

import truba
from truba.records import Bytes, Json

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


def _fails(record: object) -> str:
    raise ValueError(f"what is this: {record}")


def _bell(record: object) -> str:
    return "\a\x1b[31mü"


class Never(Bytes):
    """Asked what may be shown, it does not answer before the test says so."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def shown(self, data: bytes) -> str:
        self.over.wait()
        return "at last"


STEPS = Json(show=["step"])
AMOUNTS = Json(show=["amount"])
BROKEN = Json(show=_fails)
BELL = Json(show=_bell)
HANGS = Never()
MARKUP = Json(show=lambda record: f"<img src=x> {record['step']}")
