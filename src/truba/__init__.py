"""truba: a write-ahead log grouped by session; unfinished sessions are handed to their handler.

    truba.open(...)             a pipe inside this process, on a directory of its own
    truba.connect(...)          a client of a pipe that runs elsewhere
    truba.serve_handlers(...)   finish what others left behind, in a service of its own
    truba.sync                  the same, without async
    truba.webhook               handlers that are posted to: for the pipe, and for who receives

What is heavy is imported when it is first used, so `import truba` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from truba.errors import (
    BadRecord,
    BadRequest,
    Busy,
    Closed,
    ConfigError,
    DataDamaged,
    DataError,
    DataForeign,
    DataLocked,
    DataNewer,
    DataUnwritable,
    Fenced,
    LogPoisoned,
    NoAuth,
    NoPerm,
    NoSession,
    NotLeader,
    OperationError,
    TooBig,
    TrubaError,
    Unavailable,
    UnknownKind,
    UnknownOutcome,
)
from truba.kinds import Backoff, Breaker, Handler, Kind
from truba.ports.parked import ParkedSession
from truba.session import Pipe, RepeatData, Session
from truba.types import Cause, Index, Phase

if TYPE_CHECKING:
    from truba import sync, webhook
    from truba.client.handlers import serve_handlers
    from truba.client.remote import connect
    from truba.embedded import open  # noqa: A004 - truba.open is the name of the contract
    from truba.tls import Tls
    from truba.typed import TypedRepeat, TypedSession, handles

__version__ = "0.1.0"

_LAZY = {
    "open": "truba.embedded",
    "connect": "truba.client.remote",
    "serve_handlers": "truba.client.handlers",
    "Tls": "truba.tls",
    "TypedRepeat": "truba.typed",
    "TypedSession": "truba.typed",
    "handles": "truba.typed",
}

__all__ = [
    "Backoff",
    "BadRecord",
    "BadRequest",
    "Breaker",
    "Busy",
    "Cause",
    "Closed",
    "ConfigError",
    "DataDamaged",
    "DataError",
    "DataForeign",
    "DataLocked",
    "DataNewer",
    "DataUnwritable",
    "Fenced",
    "Handler",
    "Index",
    "Kind",
    "LogPoisoned",
    "NoAuth",
    "NoPerm",
    "NoSession",
    "NotLeader",
    "OperationError",
    "ParkedSession",
    "Phase",
    "Pipe",
    "RepeatData",
    "Session",
    "Tls",
    "TooBig",
    "TrubaError",
    "TypedRepeat",
    "TypedSession",
    "Unavailable",
    "UnknownKind",
    "UnknownOutcome",
    "connect",
    "handles",
    "open",
    "serve_handlers",
    "sync",
    "webhook",
]


def __getattr__(name: str) -> Any:
    if name in ("sync", "webhook"):
        return import_module(f"truba.{name}")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'truba' has no attribute {name!r}")
