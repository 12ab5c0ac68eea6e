"""Errors as a person at a terminal needs them: what happened, whether anything was stored, what to do next.

Maps the errors of truba, and those of the operating system that a user can cause, to one exit code each. Anything else
is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import sys
from typing import IO, Any

import click

from truba.errors import (
    ConfigError,
    DataDamaged,
    DataError,
    DataLocked,
    LogPoisoned,
    NoAuth,
    NoPerm,
    NoSession,
    NotLeader,
    OperationError,
    TrubaError,
    Unavailable,
    UnknownOutcome,
)
from truba.ports.stream import StreamDown, StreamGone
from truba.remedy import remedy, want

EXIT_CODES = {
    0: "done, and all is well",
    1: "a problem was found (by `check` in the configuration too), or the pipe refused the operation",
    2: "the command line or the configuration is wrong",
    3: "the pipe cannot be reached, or takes no work now: later",
    4: "there is no such session, file or directory",
    5: "not allowed: authenticate, or ask for the right",
    6: "the outcome is unknown: look with `truba show` before doing it again",
    7: "the data directory cannot be used",
    8: "the cluster is degraded: no leader, or a node that does not answer, does not follow, or tells of trouble",
    70: "the pipe stopped itself because its log failed; what it acknowledged is stored",
    130: "interrupted",
}

PROBLEM, USAGE, UNREACHABLE, MISSING, NOT_ALLOWED, UNKNOWN, DATA, DEGRADED = 1, 2, 3, 4, 5, 6, 7, 8


class Failure(click.ClickException):
    """Ends the command with this exit code; `what` and `next_step` go to stderr."""

    def __init__(self, exit_code: int, what: str, next_step: str = "") -> None:
        super().__init__(what)
        self.exit_code = exit_code  # type: ignore[misc]  # click itself reads it from the instance
        self.next_step = next_step

    def show(self, file: IO[Any] | None = None) -> None:
        out = file or sys.stderr
        click.echo(f"truba: {self.message}", file=out)
        if self.next_step:
            click.echo(f"  next: {self.next_step}", file=out)


def as_failure(error: Exception) -> Failure | None:
    """The failure that tells of `error`; None when it is not one that a user could cause."""
    match error:
        case OperationError():
            return _operation(error)
        case ConfigError():
            return Failure(USAGE, str(error))
        case DataError() if wanted := want(error):
            return Failure(DATA, str(error), wanted)
        case DataLocked():
            return Failure(DATA, str(error), "stop the process that holds it, or name another directory")
        case DataDamaged() if "truba log repair" not in str(error):
            return Failure(DATA, str(error), "restore the data directory from a copy; nothing in it was changed")
        case DataError():
            return Failure(DATA, str(error))
        case LogPoisoned():
            next_step = f"{remedy(error)}, then start again: recovery keeps all that was acknowledged"
            return Failure(DATA, f"{error}; the outcome of what was under way is unknown", next_step)
        case StreamDown() | StreamGone():
            return Failure(
                UNREACHABLE, f"{error}; nothing was changed", "see that the NATS servers run, then try again"
            )
        case TrubaError():
            return Failure(PROBLEM, str(error))
        case ModuleNotFoundError(name="nats"):
            return Failure(
                USAGE, "a cluster needs the client of NATS, which is not installed", "pip install 'truba[cluster]'"
            )
        case ModuleNotFoundError(name="cryptography"):
            return Failure(
                USAGE, "NATS credentials need cryptography, which is not installed", "pip install 'truba[cluster]'"
            )
        case ModuleNotFoundError(name="fastapi" | "starlette" | "uvicorn" | "prometheus_client"):
            return Failure(USAGE, f"[admin] needs {error.name}, which is not installed", "pip install 'truba[admin]'")
        case BrokenPipeError():
            return None  # whoever read our output has gone: click ends quietly
        case ConnectionError() | TimeoutError():
            return Failure(UNREACHABLE, str(error) or type(error).__name__)
        case FileNotFoundError() if error.filename is not None:
            return Failure(MISSING, f"{error.filename}: there is no such file or directory")
        case OSError() if wanted := want(error):
            return Failure(PROBLEM, error.strerror or str(error), wanted)
        case RuntimeError() if wanted := want(error):
            return Failure(PROBLEM, str(error), wanted)
        case OSError() if error.filename is not None:
            return Failure(PROBLEM, f"{error.filename}: {error.strerror}")
        case OSError() if error.errno == errno.ENOSPC:
            return Failure(PROBLEM, "the output could not be written: no space left where it goes")
        case _:
            return None


def _operation(error: OperationError) -> Failure:
    code, next_step = PROBLEM, ""
    match error:
        case NoSession():
            code = MISSING
        case Unavailable() | NotLeader():
            code, next_step = UNREACHABLE, "try again in a moment"
        case NoAuth():
            code, next_step = NOT_ALLOWED, "give --password-file, and --user if the pipe has users"
        case NoPerm():
            code, next_step = NOT_ALLOWED, "ask as somebody who has that right (--user), or have it added to [users]"
        case UnknownOutcome():
            code, next_step = UNKNOWN, "look with `truba show ID` whether it happened before doing it again"
        case _:
            next_step = {"now": "it may be repeated", "later": "try again later", "never": ""}[error.again]
    return Failure(code, str(error), next_step)
