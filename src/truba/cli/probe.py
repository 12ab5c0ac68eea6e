"""Looks whether a handler is there: connects as the pipe would, says hello, hears its KINDS, and leaves.

Nothing is handed over. What the other side sends is bounded in size and time.
"""

from __future__ import annotations

import asyncio

import hiredis

from truba.errors import ConfigError

REPLY_BYTES_MAX = 64 * 1024
TIMEOUT_S = 5.0


async def kinds_served(host: str, port: int, secret: bytes = b"", timeout_s: float = TIMEOUT_S) -> set[int]:
    """Numbers of the kinds that the handler at this address says it serves. ConfigError says why it cannot be told."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return await _ask(reader, writer, secret)
            finally:
                writer.close()
    except TimeoutError as error:
        raise ConfigError(f"no answer within {timeout_s:g} s; is it a handler of truba that listens there?") from error
    except ConnectionRefusedError as error:
        raise ConfigError("nothing listens there; start the handler, for one with `truba handlers`") from error
    except OSError as error:
        raise ConfigError(f"cannot connect: {error.strerror or error}") from error


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes) -> set[int]:
    writer.write(b">4\r\n$5\r\nhello\r\n$5\r\ntruba\r\n$1\r\n1\r\n$%d\r\n%s\r\n" % (len(secret), secret))
    parser = hiredis.Reader()
    left = REPLY_BYTES_MAX
    while left > 0 and (data := await reader.read(left)):
        left -= len(data)
        parser.feed(data)
        try:
            while (request := parser.gets()) is not False:
                match request:
                    case [bytes(verb), *numbers] if verb.upper() == b"KINDS":
                        return _numbers(numbers)
                    case [bytes(verb), *_] if verb.upper() == b"OWNER":
                        writer.write(b"*0\r\n")
                    case [bytes(), *_]:
                        writer.write(b"+OK\r\n")
                    case hiredis.ReplyError():
                        raise ConfigError(f"it refuses the pipe: {request}; is handler_secret_file right?")
                    case _:
                        raise ConfigError("what answers there is no handler of truba")
        except (hiredis.ProtocolError, MemoryError, ValueError) as error:
            raise ConfigError("what answers there is no handler of truba") from error
    if left <= 0:
        raise ConfigError("what answers there is no handler of truba: it talks without end")
    raise ConfigError("it closed the connection; is handler_secret_file right, and is it a handler of truba?")


def _numbers(words: list[object]) -> set[int]:
    """`n [n ...] [CREDIT c]`"""
    numbers: set[int] = set()
    for word in words:
        match word:
            case bytes() if word.upper() == b"CREDIT":
                break
            case bytes() | int():
                numbers.add(int(word))
            case _:
                raise ValueError(f"not a kind: {word!r}")
    return numbers
