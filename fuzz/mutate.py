"""Inputs out of dice: a seed, and what damage makes of it. For where no fuzzer steers by what the code covers."""

from __future__ import annotations

import random

from fuzz.target import Target

_NUMBERS = (b"0", b"-1", b"1", b"65536", b"1000000000", b"4294967295", b"18446744073709551616", b"00", b"+1", b"")


def one(target: Target, dice: random.Random) -> bytes:
    """An input: now and then noise, mostly a seed with a little damage."""
    if dice.random() < 0.05:
        return dice.randbytes(dice.choice((0, 1, 3, 20, 200, 2_000)))
    data = bytearray(target.seed(dice))
    for _ in range(dice.choice((0, 1, 1, 2, 4, 12))):
        _damage(target, dice, data)
    return bytes(data)


def _damage(target: Target, dice: random.Random, data: bytearray) -> None:
    at = dice.randrange(len(data) + 1)
    size = dice.choice((1, 1, 2, 4, 9, 40))
    match dice.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        case 1:
            data[at : at + size] = dice.randbytes(size)
        case 2:
            del data[at : at + size]
        case 3:
            del data[at:]
        case 4:
            other = dice.randrange(len(data) + 1)
            data[at:at] = data[other : other + 4 * size]
        case 5 if target.tokens:
            data[at : at + dice.choice((0, size))] = dice.choice(target.tokens)
        case 6:
            digits = next((p for p in range(at, len(data)) if 0x30 <= data[p] <= 0x39), at)
            data[digits : digits + 1] = dice.choice(_NUMBERS)
        case _:
            data[at : at + size] = bytes(min(size, len(data) - at))
