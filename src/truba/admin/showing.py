"""What the codecs of kinds allow to show of records, asked off the loop.

A codec is somebody else's code: it may raise, or never come back. So it runs in a thread, one at a time for each kind;
nobody waits for it for longer than WAIT_S, and it never holds up the loop, another kind's view, or the end of the
process. Each kind's trouble is told in the log once, and says nothing of any record.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog

from truba.kinds import Kind
from truba.ports.records import Codec, Shown

log = structlog.get_logger("truba.admin")

WAIT_S = 2.0
"""For the texts of one page of records: a page is read by somebody who waits, and asked for anew every two seconds."""


class Showing:
    """One for each admin address."""

    def __init__(self) -> None:
        self._at_work: dict[tuple[int, int], asyncio.Future[list[str]]] = {}  # by kind and codec
        self._told: dict[int, Codec[Any]] = {}  # kind -> the codec whose trouble was told

    async def texts(self, kind: Kind, codec: Codec[Any], records: Sequence[bytes]) -> list[str]:
        """One for each record. Never raises for what the codec does."""
        key = (kind.number, id(codec))
        try:
            async with asyncio.timeout(WAIT_S):
                while key in self._at_work:
                    await asyncio.wait([self._at_work[key]])
                return await asyncio.shield(self._begin(key, kind, codec, records))
        except TimeoutError:
            self._tell(kind, codec, f"no answer within {WAIT_S:g} s", "")
            return [f"{len(record)} bytes, the codec takes too long to show them" for record in records]

    def _begin(
        self, key: tuple[int, int], kind: Kind, codec: Codec[Any], records: Sequence[bytes]
    ) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        work: asyncio.Future[list[str]] = loop.create_future()
        failures: list[BaseException] = []

        def ended(texts: list[str]) -> None:
            del self._at_work[key]
            if failures:
                self._tell(kind, codec, type(failures[0]).__name__, _place(failures[0]))
            work.set_result(texts)

        def run() -> None:
            texts = list(Shown(codec, records, failures.append))
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended, texts)

        # Not a pool's thread: the process would wait for it at its end.
        threading.Thread(target=run, name=f"truba codec {kind.name}", daemon=True).start()
        self._at_work[key] = work
        return work

    def _tell(self, kind: Kind, codec: Codec[Any], error: str, place: str) -> None:
        if self._told.get(kind.number) is not codec:
            self._told[kind.number] = codec
            log.warning(
                "a codec failed to show records",
                kind=kind.name,
                error=error,
                place=place,
                outcome="their sizes are shown; nothing else is touched",
                next="mend the codec's shown(); this is told once",
            )


def _place(error: BaseException) -> str:
    """File and line where it was raised. Its text may quote a record, and so may a traceback's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
