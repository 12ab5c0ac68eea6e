"""RESP answers out of a stream, with bounds: what a peer sent decides how it is read, never how much memory it takes.

Each value is read as it comes, so a piece of a file is held once. Strings stay bytes; a map's keys are bytes too.
"""

from __future__ import annotations

import asyncio

from truba.client.requests import error_of

LINE_BYTES_MAX = 4_096
DEPTH_MAX = 4

Answer = bytes | int | None | list["Answer"] | dict[bytes, "Answer"]


class NoAnswer(ValueError):
    """These bytes are no answer, or one that is larger than was asked for."""


async def read_answer(reader: asyncio.StreamReader, bytes_max: int) -> Answer:
    """The next answer, at most about so many bytes of it.

    OperationError when it is an error; NoAnswer; EOFError (IncompleteReadError) or OSError when the connection ended.
    """
    return await _Reading(reader, bytes_max).value(0)


class _Reading:
    def __init__(self, reader: asyncio.StreamReader, bytes_max: int) -> None:
        self._reader = reader
        self._left_bytes = bytes_max

    async def value(self, depth: int) -> Answer:
        line = await self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-" and depth == 0:
            raise error_of(rest.decode("utf-8", "replace"))
        if kind == b"$" and rest == b"-1":
            return None
        number = _number(rest)
        match kind:
            case b":":
                return number
            case b"$" if number >= 0:
                return await self._bulk(number)
            case b"*" if number >= 0 and depth < DEPTH_MAX:
                return [await self.value(depth + 1) for _ in range(number)]
            case b"%" if number >= 0 and depth < DEPTH_MAX:
                return {await self._key(): await self.value(depth + 1) for _ in range(number)}
            case _:
                raise NoAnswer(f"not an answer: {line[:48]!r}")

    async def _key(self) -> bytes:
        key = await self.value(DEPTH_MAX)
        if not isinstance(key, bytes):
            raise NoAnswer("a map's key is no string")
        return key

    async def _bulk(self, size: int) -> bytes:
        self._spend(size)
        data = await self._reader.readexactly(size)
        if await self._reader.readexactly(2) != b"\r\n":
            raise NoAnswer(f"a string of {size} bytes does not end where it should")
        return data

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError as error:
            raise NoAnswer("a line without an end") from error
        if len(line) > LINE_BYTES_MAX:
            raise NoAnswer("a line without an end")
        self._spend(len(line))
        return line[:-2]

    def _spend(self, size: int) -> None:
        self._left_bytes -= size
        if self._left_bytes < 0:
            raise NoAnswer("larger than what was asked for")


def _number(digits: bytes) -> int:
    if digits.removeprefix(b"-").isdigit() and len(digits) <= 20:
        return int(digits)
    raise NoAnswer(f"{digits[:48]!r} is no number")
