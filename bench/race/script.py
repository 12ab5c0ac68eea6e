"""What a connection says and what it must hear, in words that load.c reads. Pure.

A `Script` is one protocol's way to do the job: steps said once after connecting, then a cycle of operations. Tokens
are bytes or one of the words below; their meaning stands at the top of load.c. Answers are given byte by byte wherever
the server has no choice, so that anything else than the work really done ends the measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum


class Word(Enum):
    """A token that is not plain bytes."""

    ID = "id"
    ID_LENGTH = "idlen"
    WHO = "who"
    DUE = "due"
    DIGITS = "digits"
    NAME = "name"
    REST = "rest"


ID, ID_LENGTH, WHO, DUE, DIGITS, NAME, REST = Word
ID_BYTES, DUE_BYTES = 16, 10
"""Of an id of our own, and of a due time, as they are said."""


@dataclass(frozen=True, slots=True)
class AnyBytes:
    """So many bytes, whatever they are."""

    count: int


Token = bytes | Word | AnyBytes

SAID = frozenset({ID, ID_LENGTH, WHO, DUE})
HEARD = frozenset({DIGITS, NAME, REST})


@dataclass(frozen=True, slots=True)
class Step:
    """One request and its answer. ValueError when a token stands where it has no meaning."""

    say: tuple[Token, ...]
    hear: tuple[Token, ...]

    def __post_init__(self) -> None:
        for token in self.say:
            if isinstance(token, AnyBytes) or (isinstance(token, Word) and token not in SAID):
                raise ValueError(f"{token} cannot be said")
        for at, token in enumerate(self.hear):
            if isinstance(token, Word) and token not in HEARD:
                raise ValueError(f"{token} cannot be heard")
            if token is REST and not (at == len(self.hear) - 2 and isinstance(self.hear[-1], bytes)):
                raise ValueError("what ends REST is the one token after it, of bytes")


@dataclass(frozen=True, slots=True)
class Script:
    cycle: tuple[Step, ...]
    hello: tuple[Step, ...] = ()
    aside: bytes = b""  # may come between answers

    def __post_init__(self) -> None:
        if not self.cycle:
            raise ValueError("a script without a cycle says nothing")

    def text(self) -> str:
        """As load.c reads it."""
        lines = [f"aside {_word(self.aside)}"] if self.aside else []
        lines += [f"hello {_line(step)}" for step in self.hello]
        lines += [f"cycle {_line(step)}" for step in self.cycle]
        return "\n".join(lines) + "\n"

    def example(self) -> bytes:
        """An answer to the last operation such as a server could give: what the null server says to everything."""
        return b"".join(_example(token) for token in self.cycle[-1].hear)

    def against_null(self) -> Script:
        """The same requests, said to a server that gives `example()` to everything."""
        answer = (self.example(),)
        return Script(tuple(replace(step, hear=answer) for step in self.cycle))


def step(say: Sequence[Token] | bytes, hear: Sequence[Token] | bytes) -> Step:
    return Step(
        (say,) if isinstance(say, bytes) else tuple(say),
        (hear,) if isinstance(hear, bytes) else tuple(hear),
    )


def resp(*args: Token | Sequence[Token]) -> tuple[Token, ...]:
    """A request of RESP, the Redis protocol; an argument may be put together of several tokens."""
    tokens: list[Token] = [b"*%d\r\n" % len(args)]
    for arg in args:
        parts: Sequence[Token] = [arg] if isinstance(arg, bytes | Word | AnyBytes) else arg
        if list(parts) == [ID]:  # may be the server's: its length is known when it is said
            tokens += [b"$", ID_LENGTH, b"\r\n", ID, b"\r\n"]
            continue
        length = sum(len(part) if isinstance(part, bytes) else _SIZES[part] for part in parts)
        tokens += [b"$%d\r\n" % length, *parts, b"\r\n"]
    return joined(tokens)


_SIZES: dict[object, int] = {ID: ID_BYTES, DUE: DUE_BYTES}


def joined(tokens: Sequence[Token]) -> tuple[Token, ...]:
    """The same, with bytes that follow one another put together."""
    found: list[Token] = []
    for token in tokens:
        last = found[-1] if found else None
        if isinstance(token, bytes) and isinstance(last, bytes):
            found[-1] = last + token
        else:
            found.append(token)
    return tuple(found)


def _line(step: Step) -> str:
    return " ".join([*map(_word, joined(step.say)), "|", *map(_word, joined(step.hear))])


def _word(token: Token) -> str:
    match token:
        case bytes():
            return f"x{token.hex()}"
        case AnyBytes(count):
            return f"any:{count}"
        case Word():
            return token.value


def _example(token: Token) -> bytes:
    match token:
        case bytes():
            return token
        case AnyBytes(count):
            return bytes(count)
        case Word.DIGITS:
            return b"1"
        case _:
            return b""
