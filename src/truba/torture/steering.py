"""An operator who pauses kinds and continues them while everybody is harmed, and what must have come of it.

The last acknowledged word holds, whatever died since: after all were killed, the pipe knows which kinds are paused. And
nothing of those is handed over to the handlers that start then, before they are continued.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from math import inf

from truba.client.remote import RemotePipe
from truba.client.target import parse_target
from truba.errors import OperationError
from truba.torture.history import Delivered, Line, Listed
from truba.torture.journal import Journal
from truba.torture.sessions import Exchange, exchanges

PAUSE_S = 0.8
"""Between two words, on average."""

TIMEOUT_S = 5.0
HELD_BACK_S = 0.5
"""How long handlers that would take everything are given nothing of a paused kind, before it is continued."""


async def steer(journal: Journal, url: str, kinds: Sequence[int], dice: random.Random, patience_s: float) -> None:
    """Until cancelled."""
    pipe = RemotePipe([parse_target(url)], None, 0.0, TIMEOUT_S, None, None)
    await pipe.open(patience_s)
    async with pipe:
        while True:
            await asyncio.sleep(dice.expovariate(1 / PAUSE_S))
            kind, on = dice.choice(kinds), dice.random() < 0.6
            try:
                await say(journal, kind, pipe.pause_kind(kind) if on else pipe.continue_kind(kind), on=on)
            except OperationError:
                continue  # it is written down


async def say(journal: Journal, kind: int, call: Awaitable[None], *, on: bool) -> None:
    """A word, written down."""
    await journal.call("pause" if on else "continue", call, kind=kind)


def misled(journals: Mapping[str, Sequence[Line]], kinds: Iterable[int]) -> Iterator[tuple[str, str]]:
    """What no order of the operator's words explains: the kind, and what is wrong. Pure.

    `journals`: by whose they are; of the handlers that start after all were killed, by names that begin with `f`.
    """
    words = [
        one
        for who, lines in journals.items()
        for one in exchanges(who, lines)
        if one.asked.verb in ("pause", "continue")
    ]
    listed = [line for lines in journals.values() for line in lines if isinstance(line, Listed)]
    for kind in kinds:
        mine = [
            word for word in words if word.asked.kind == kind and (word.told is None or word.told.outcome != "refused")
        ]
        for listing in listed:
            on = kind in listing.paused
            if not _may_be_last([word for word in mine if word.asked.at_s < listing.at_s], on, listing.begin_s):
                yield f"kind {kind}", f"it is {'' if on else 'not '}paused, and the last acknowledged word was another"
            if on:
                until_s = min((word.asked.at_s for word in mine if word.asked.at_s > listing.at_s), default=inf)
                early = [
                    line.id
                    for who, lines in journals.items()
                    for line in lines
                    if who.startswith(f"f{kind}-") and isinstance(line, Delivered) and line.at_s < until_s
                ]
                if early:
                    yield f"kind {kind}", f"{early[0]} was handed over while the kind was paused"


def _may_be_last(words: Sequence[Exchange], on: bool, at_s: float) -> bool:
    """One of these words (or none was ever said: nothing is paused in the beginning) was not followed by another one
    that was acknowledged."""
    since_s = [] if on else [-inf]
    against_s = []
    for _, asked, told in words:
        acknowledged = told is not None and told.outcome == "ok"
        if (asked.verb == "pause") is on:
            since_s.append(told.at_s if told is not None and acknowledged else inf)
        elif told is not None and acknowledged and told.at_s < at_s:
            against_s.append(asked.at_s)
    return any(all(said_s <= than_s for said_s in against_s) for than_s in since_s)
