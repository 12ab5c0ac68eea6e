"""Looks whether a handler is there: connects as the pipe would, says hello, hears its KINDS, and leaves.

Nothing is handed over. What the other side sends is bounded in size and time.
"""

from __future__ import annotations

import asyncio
from itertools import takewhile
from pathlib import Path

from truba.address import Address
from truba.errors import ConfigError
from truba.protocols.resp import FramingLost, Limits, StrictParser
from truba.tls import Contexts, HandshakeFailed, open_streams

REPLY_BYTES_MAX = 64 * 1024
TIMEOUT_S = 5.0


async def kinds_served(
    where: Address | Path, secret: bytes = b"", tls: Contexts | None = None, timeout_s: float = TIMEOUT_S
) -> set[int]:
    """Numbers of the kinds that the handler at this address says it serves. ConfigError says why it cannot be told."""
    try:
        async with asyncio.timeout(timeout_s):
            if isinstance(where, Path):
                reader, writer = await asyncio.open_unix_connection(where)
            else:
                reader, writer = await open_streams(*where, tls)
            try:
                return await _ask(reader, writer, secret)
            finally:
                writer.close()
    except TimeoutError as error:
        raise ConfigError(f"no answer within {timeout_s:g} s; is it a handler of truba that listens there?") from error
    except (ConnectionRefusedError, FileNotFoundError) as error:  # the latter: of a socket's file
        raise ConfigError("nothing listens there; start the handler, for one with `truba handlers`") from error
    except HandshakeFailed as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"cannot connect: {error.strerror or error}") from error


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes) -> set[int]:
    writer.write(b">4\r\n$5\r\nhello\r\n$5\r\ntruba\r\n$1\r\n1\r\n$%d\r\n%s\r\n" % (len(secret), secret))
    parser = StrictParser(Limits(args_max=4096, request_bytes_max=REPLY_BYTES_MAX))
    left = REPLY_BYTES_MAX
    while left > 0 and (data := await reader.read(left)):
        if left == REPLY_BYTES_MAX and data.startswith(b"-"):
            refusal = data.partition(b"\r")[0][1:].decode(errors="replace")
            raise ConfigError(f"it refuses the pipe: {refusal!r}; is handler_secret_file right?")
        left -= len(data)
        try:
            for verb, *words in parser.feed(data):
                match verb.upper():
                    case b"KINDS":
                        return _numbers(words)
                    case b"OWNER":
                        writer.write(b"*0\r\n")
                    case _:
                        writer.write(b"+OK\r\n")
        except (FramingLost, ValueError) as error:
            raise ConfigError("what answers there is no handler of truba") from error
    if left <= 0:
        raise ConfigError("what answers there is no handler of truba: it talks without end")
    raise ConfigError("it closed the connection; is handler_secret_file right, and is it a handler of truba?")


def _numbers(words: list[bytes]) -> set[int]:
    """Of `KINDS n [n ...] [CREDIT c]`. ValueError when they are no numbers."""
    numbers = takewhile(lambda word: word.upper() != b"CREDIT", words)
    return {int(number) for number in numbers}
