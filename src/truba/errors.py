"""The whole tree of errors on one screen.

An error of an operation answers two questions: did it happen (`happened`: "no" or "unknown"), and may it be repeated
(`again`: "now", "later" or "never")? Its `code` is the first word of the error on the wire.

    TrubaError
      OperationError          an operation on the pipe was refused, or its outcome is unknown
        UnknownKind  NoSession  Fenced  Closed  TooBig  Busy  NotLeader  Unavailable  UnknownOutcome
        NoAuth  NoPerm  BadRequest
      BadRecord               a codec cannot write, or read, a record
      ConfigError             the configuration cannot be used
      DataError               the data directory cannot be used
        DataLocked  DataDamaged  DataNewer  DataForeign  DataUnwritable  LogRegression
      LogPoisoned             an I/O error of the log: nothing in memory may be trusted any more
      Deposed                 another node of the cluster leads now: what was under way is unknown
"""

from __future__ import annotations

from typing import ClassVar, Literal

Happened = Literal["no", "unknown"]
Again = Literal["now", "later", "never"]


class TrubaError(Exception):
    """Anything that truba raises on purpose."""


class OperationError(TrubaError):
    """An operation was refused, or its outcome is unknown."""

    code: ClassVar[str] = "ERR"
    happened: ClassVar[Happened] = "no"
    again: ClassVar[Again] = "never"


class UnknownKind(OperationError):
    """A kind that the configuration does not name."""

    code = "UNKNOWNKIND"


class NoSession(OperationError):
    """No such session: it is finished, or it never was."""

    code = "NOSESSION"


class Fenced(OperationError):
    """The session belongs to a later owner (or to none): this one's hold has ended."""

    code = "FENCED"


class Closed(OperationError):
    """This owner has deleted or stored the session itself."""

    code = "CLOSED"


class TooBig(OperationError):
    """A record, a session or a request is over its limit."""

    code = "TOOBIG"


class Busy(OperationError):
    """Not now: the session is held by an owner, or a limit is reached. Try again later."""

    code = "BUSY"
    again = "later"


class NotLeader(OperationError):
    """This node does not lead; ask the one that the message names."""

    code = "NOTLEADER"
    again = "now"


class Unavailable(OperationError):
    """The pipe takes no such operation now: starting, stopping, or its disk is full."""

    code = "UNAVAILABLE"
    again = "later"


class UnknownOutcome(OperationError):
    """Whether the operation happened could not be determined. Reconnect with the owner's token and compare counts."""

    code = "UNKNOWN"
    happened = "unknown"
    again = "later"


class NoAuth(OperationError):
    """Authentication is required, or failed."""

    code = "NOAUTH"


class NoPerm(OperationError):
    """This user may not do that."""

    code = "NOPERM"


class BadRequest(OperationError):
    """The request is malformed."""

    code = "ERR"


OPERATION_ERRORS: dict[str, type[OperationError]] = {
    kind.code: kind
    for kind in (
        UnknownKind,
        NoSession,
        Fenced,
        Closed,
        TooBig,
        Busy,
        NotLeader,
        Unavailable,
        UnknownOutcome,
        NoAuth,
        NoPerm,
        BadRequest,
    )
}
"""Code on the wire -> class, for clients that turn an error reply back into an exception."""


class BadRecord(TrubaError, ValueError):
    """A record that its codec cannot write so that it can be read again, or cannot read. Nothing was stored."""


class ConfigError(TrubaError):
    """The configuration cannot be used; the message names file, line and what to write instead."""


class DataError(TrubaError):
    """The data directory cannot be used; the message names the place and what to do."""


class DataLocked(DataError):
    """Another process holds the data directory."""


class DataDamaged(DataError):
    """Stored bytes are not what was written. Nothing was changed."""


class DataNewer(DataError):
    """The data was written by a newer version of truba."""


class DataForeign(DataError):
    """The directory holds something that truba did not write."""


class DataUnwritable(DataError):
    """The data directory cannot be written."""


class LogPoisoned(TrubaError):
    """A write, sync or rename of the log failed. What was under way is unknown; the process must end and recover."""


class LogRegression(DataError):
    """The cluster's stream lost or changed what was acknowledged. `truba cluster reseed` mends it."""

    def __str__(self) -> str:
        return f"LOG_REGRESSION: {super().__str__()}"


class Deposed(TrubaError):
    """This node does not lead any more. Its disk is as good as before; its memory is ahead of it and must go."""
