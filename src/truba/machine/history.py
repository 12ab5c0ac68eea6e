"""What became of a session's holds: its client's, then each hand-over's. Pure.

A hold's end is written into the history only when the next one begins (or an operator decides): until then the head's
own `left_ms`, `cause` and `detail` tell it. So a client's Store costs nothing for it.
"""

from __future__ import annotations

from truba.ports.store import Head, Held
from truba.types import Phase

HISTORY_MAX = 8
"""Holds kept with a session: it is written whole with each checkpoint, and `deliveries` counts the rest."""

DETAIL_CHARS_MAX = 80
"""Of each hold's detail: the head has the last one whole."""


def holds(head: Head) -> tuple[Held, ...]:
    """The last holds, oldest first, each with its end as far as it has one. `epoch` tells how many are missing."""
    history = head.history or (Held(head.epoch, head.created_ms if head.epoch == 0 else 0),)
    last = history[-1]
    if last.cause or head.phase in (Phase.ACTIVE, Phase.REPEATING):
        return history
    ended = Held(last.epoch, last.at_ms, last.to, head.left_ms, head.cause.value, head.detail[:DETAIL_CHARS_MAX])
    return (*history[:-1], ended)


def handed(head: Head, at_ms: int, to: str) -> tuple[Held, ...]:
    """The history of a stored session once it is handed over; `head` as it was before."""
    return (*holds(head)[1 - HISTORY_MAX :], Held(head.epoch + 1, at_ms, to))
