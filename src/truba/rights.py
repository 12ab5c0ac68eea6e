"""Which verb needs which right. Pure. Every verb of the wire is decided here, which a test checks.

A right is a verb on a kind. Groups are for people: a configuration may name either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ON_SESSIONS = frozenset({"APPEND", "REPLACE", "DELETE", "STORE", "FAIL", "TOUCH"})
"""On a session that one holds, as its client or its handler. Who may hold none can do nothing with them."""

READ = frozenset({"LS", "SHOW", "WHY", "INFO"})
"""They change nothing, and a refusal of one need not say so."""

GROUPS: Mapping[str, frozenset[str]] = {
    "write": frozenset({"NEW", "OWNER"}) | ON_SESSIONS,
    "handle": frozenset({"KINDS", "OWNER"}) | ON_SESSIONS,
    "read": READ,
    "operate": frozenset({"RESUME", "REMOVE", "PAUSE", "CONTINUE", "BACKUP"}),
}
"""write: a client. handle: a service that finishes sessions. read: looks, records included. operate: decides."""

FREE = frozenset({"PING", "ECHO", "AUTH", "HELLO", "LEADER", "CLIENT", "COMMAND", "CONFIG", "SELECT", "QUIT"})
"""They show and change nothing but the connection itself: whoever is known may."""

OF_NO_KIND = frozenset({"OWNER"})
"""About the connection, not about a kind: a right on any kind is enough. Sessions are asked for elsewhere."""

ALL = frozenset().union(*GROUPS.values())


def expand(words: Iterable[str]) -> frozenset[str]:
    """Verbs (upper case) of groups and verbs in any case. KeyError names a word that is neither."""
    verbs: set[str] = set()
    for word in words:
        if (group := GROUPS.get(word.lower())) is not None:
            verbs |= group
        elif word.upper() in ALL:
            verbs.add(word.upper())
        else:
            raise KeyError(word)
    return frozenset(verbs)


def missing(verb: str, kind: str | None) -> str:
    """What somebody lacks who may not use `verb`, for an error: a verb's groups are named too. None: on no one kind."""
    groups = [name for name, verbs in GROUPS.items() if verb in verbs]
    of = f" (or {' or '.join(groups)})" if groups else ""
    where = f"on kind {kind}" if kind is not None else "on any kind" if verb in OF_NO_KIND else "on all kinds"
    return f"the right {verb}{of} {where} is missing"
