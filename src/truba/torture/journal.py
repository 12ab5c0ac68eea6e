"""A journal is a file of JSON lines, one write for each, so that a killed process has written what it has written."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from truba.errors import OperationError
from truba.torture.history import Asked, Delivered, Line, Outcome, Steering, Told, Verb

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class Journal:
    """Written by one process, from the first line on."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)

    def write(self, line: Line) -> None:
        text = _encode(line) + b"\n"
        if os.write(self._file, text) != len(text):
            raise OSError("a journal could not be written: the disk is full")

    def asked(self, verb: Verb | Steering, **fields: Any) -> int:
        self._asked += 1
        self.write(Asked(self._asked, time.monotonic(), verb, **fields))
        return self._asked

    def told(self, n: int, outcome: Outcome, **fields: Any) -> None:
        self.write(Told(n, time.monotonic(), outcome, **fields))

    def delivered(self, **fields: Any) -> None:
        self.write(Delivered(time.monotonic(), **fields))

    async def call(
        self,
        verb: Verb | Steering,
        call: Awaitable[T],
        told: Callable[[T], dict[str, Any]] | None = None,
        **fields: Any,
    ) -> T:
        """Write down that it begins, make it, write down what came of it (`told`: fields); its error is raised."""
        n = self.asked(verb, **fields)
        try:
            answer = await call
        except OperationError as error:
            self.told(n, "refused" if error.happened == "no" else "unknown", error=error.code)
            raise
        self.told(n, "ok", **(told(answer) if told is not None else {}))
        return answer


def read_journal(path: Path) -> list[Line]:
    """All whole lines. A torn last one is not there; DecodeError for anything else that is no line."""
    *whole, torn = path.read_bytes().split(b"\n")
    del torn  # empty, when the last line is whole
    return [_decode(line) for line in whole]
