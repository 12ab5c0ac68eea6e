"""Both request parsers on damaged streams, for as long as you like: `python -m fuzz.resp --seconds 60 [--seed N]`.

Every stream has its own seed, printed when the parsers disagree on it: `--seed N --seconds 0` runs that one again.
Exit status 1 on a disagreement.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from truba.protocols.resp import FramingLost, Limits, RequestParser, StrictParser

_LIMITS = (
    Limits(),
    Limits(args_max=256, request_bytes_max=16_384, inline_bytes_max=64),
    Limits(args_max=3, request_bytes_max=60, inline_bytes_max=16),
)
_TOKENS = (
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b"*",
        b"$",
        b"*3\r\n",
        b"*2\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"*4000000000\r\n",
    ),
    *(
        b"$4000000000\r\n",
        b"*1\r\n*1\r\n",
        b"%1\r\n",
        b">2\r\n",
        b"~1\r\n",
        b":1\r\n",
        b"_\r\n",
        b"$1022\r\n",
        b"$4094\r\n",
        b"$4095\r\n",
    ),
    *(
        b"PING\r\n",
        b'"a b"',
        b'"',
        b"\\x41",
        b" ",
        b"\x00",
        b"\x16",
        b"POST ",
        b"$03\r\nabc\r\n",
        b"$3\r\nabcXX*99999\r\n",
    ),
)


def _argument(dice: random.Random) -> bytes:
    match dice.randrange(6):
        case 0:
            return dice.randbytes(dice.randrange(300))
        case 1:
            return b"".join(dice.choices(_TOKENS, k=dice.randrange(5)))
        case 2:
            return b"z" * dice.choice((0, 1, 1021, 1022, 4094, 4095, 4096, 20_000))
        case _:
            return b"%d-%d" % (dice.randrange(9), dice.randrange(10**6))


def stream(dice: random.Random) -> list[bytes]:
    """Chunks of a stream: requests, then damage, then cuts."""
    parts: list[bytes] = []
    for _ in range(dice.choice((1, 1, 2, 5, 40))):
        args = [_argument(dice) for _ in range(dice.choice((1, 2, 2, 3, 3, 4, 9)))]
        parts.append(b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args))
        if dice.random() < 0.1:
            parts.append(dice.choice(_TOKENS))
    data = bytearray(b"".join(parts))
    for _ in range(dice.choice((0, 0, 1, 1, 2, 8))):
        at = dice.randrange(len(data) + 1)
        data[at : at + dice.choice((0, 0, 1, 1, 2, 9))] = dice.choice(
            (dice.randbytes(1), dice.choice(_TOKENS), b"", bytes(data[at : at + 20]))
        )
    pace = dice.choice((len(data) // 1000 + 1, len(data) // 100 + 1, 64, 1 << 20, 1 << 20))
    chunks: list[bytes] = []
    at = 0
    while at < len(data):
        size = dice.randrange(1, pace + 1) if pace < 1 << 20 or dice.random() < 0.3 else len(data)
        chunks.append(bytes(data[at : at + size]))
        if dice.random() < 0.02:
            chunks.append(b"")
        at += size
    return chunks


def _steps(parser: StrictParser | RequestParser, chunks: list[bytes]) -> list[tuple[list[list[bytes]], str]]:
    steps: list[tuple[list[list[bytes]], str]] = []
    for chunk in chunks:
        try:
            steps.append((parser.feed(chunk), ""))
        except FramingLost as lost:
            steps.append((lost.requests, f"{lost.error.code} {lost}"))
    return steps


def disagreement(dice: random.Random) -> str | None:
    """One stream through both parsers, and in one piece: what differs, if anything."""
    chunks, limits = stream(dice), dice.choice(_LIMITS)
    strict, fast = (_steps(parser(limits), chunks) for parser in (StrictParser, RequestParser))
    if strict != fast:
        return f"with {limits}\nof      {chunks}\nstrict  {strict}\nfast    {fast}"
    whole = _steps(RequestParser(limits), [b"".join(chunks)])
    told = [request for requests, _ in fast for request in requests], next((error for _, error in fast if error), "")
    if whole and whole != [told]:
        return f"with {limits}\nof      {chunks}\ncut     {fast}\nwhole   {whole}"
    return None


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=None)
    chosen = options.parse_args()
    seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
    print(f"first seed {seed}")  # noqa: T201 - a program's output
    end_s = time.monotonic() + chosen.seconds
    streams = 0
    while streams == 0 or time.monotonic() < end_s:
        found = disagreement(random.Random(seed + streams))
        if found is not None:
            print(f"seed {seed + streams}: the parsers disagree\n{found}")  # noqa: T201
            return 1
        streams += 1
    print(f"{streams} streams, no disagreement")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
