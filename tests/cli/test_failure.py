"""Every error that a user can cause has an exit code and says what to do; a bug keeps its traceback."""

from __future__ import annotations

import errno

import pytest

from truba import errors
from truba.cli.failure import EXIT_CODES, as_failure
from truba.ports.stream import StreamDown


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.NoSession("no session 3-117"), 4, "no session 3-117"),
        (errors.Busy("held; nothing was stored"), 1, "held; nothing was stored"),
        (errors.Unavailable("the disk is full"), 3, "the disk is full"),
        (errors.NotLeader("ask b"), 3, "ask b"),
        (errors.UnknownOutcome("outcome unknown"), 6, "outcome unknown"),
        (errors.NoAuth("authenticate first"), 5, "authenticate first"),
        (errors.NoPerm("not allowed"), 5, "not allowed"),
        (errors.ConfigError("a.toml:1: bad"), 2, "a.toml:1: bad"),
        (errors.DataLocked("data is held"), 7, "data is held"),
        (errors.DataDamaged("at 512"), 7, "at 512"),
        (errors.LogPoisoned("fdatasync: EIO"), 7, "fdatasync: EIO; the outcome of what was under way is unknown"),
        (errors.TrubaError("other"), 1, "other"),
        (StreamDown("no server"), 3, "no server; nothing was changed"),
        (ModuleNotFoundError("No module named 'nats'", name="nats"), 2, "a cluster needs the client of NATS"),
        (ConnectionResetError("reset by peer"), 3, "reset by peer"),
        (TimeoutError(), 3, "TimeoutError"),
        (FileNotFoundError(2, "No such file", "x"), 4, "x: there is no such file or directory"),
        (PermissionError(13, "Permission denied", "x"), 1, "x: Permission denied"),
    ],
)
def test_exit_codes(error: Exception, code: int, said: str) -> None:
    failure = as_failure(error)
    assert failure is not None
    assert failure.exit_code == code
    assert failure.exit_code in EXIT_CODES
    assert failure.message.startswith(said)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FULL, NO_FILES = OSError(errno.EIO, "Input/output error"), OSError(errno.EMFILE, "Too many open files", "log/segment-1")


@pytest.mark.parametrize(
    ("error", "code", "disk"),
    [
        (caused(errors.LogPoisoned("the log failed"), FULL), 7, True),
        (caused(errors.LogPoisoned("the log failed"), NO_FILES), 7, False),
        (caused(errors.DataDamaged("the store cannot be read"), NO_FILES), 7, False),
        (errors.DataDamaged("IO error: While open a file: store/000012.sst: Too many open files"), 7, False),
        (NO_FILES, 1, False),
        (OSError(errno.ENFILE, "Too many open files in system"), 1, False),
    ],
)
def test_want_of_file_descriptors_is_not_blamed_on_the_disk(error: Exception, code: int, disk: bool) -> None:
    failure = as_failure(error)
    assert failure is not None
    assert failure.exit_code == code
    assert ("mend the disk" in failure.next_step) is disk
    assert ("LimitNOFILE=" in failure.next_step) is not disk
    assert "restore" not in failure.next_step


NO_THREAD = RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("error", "code"),
    [(caused(errors.LogPoisoned("the log failed"), NO_THREAD), 7), (NO_THREAD, 1)],
)
def test_want_of_threads_is_not_blamed_on_the_disk(error: Exception, code: int) -> None:
    failure = as_failure(error)
    assert failure is not None
    assert failure.exit_code == code
    assert "TasksMax=" in failure.next_step
    assert "mend the disk" not in failure.next_step


def test_an_error_that_is_its_own_cause_is_told_too() -> None:
    """`raise error from error`, where one was to be translated and was in truba's words already."""
    error = errors.DataDamaged("at 512")
    error.__cause__ = error
    failure = as_failure(error)
    assert failure is not None
    assert failure.exit_code == 7


@pytest.mark.parametrize("error", errors.OPERATION_ERRORS.values())
def test_what_did_not_happen_is_for_the_refusal_to_say(error: type[errors.OperationError]) -> None:
    """Which knows whether anything could have: "nothing was begun" needs no "nothing was stored" behind it."""
    failure = as_failure(error("refused; nothing was begun"))
    assert failure is not None
    assert failure.message == "refused; nothing was begun"


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), AssertionError(), OSError(5, "EIO"), BrokenPipeError(32, "EPIPE")]
)
def test_what_is_left_to_others(error: Exception) -> None:
    assert as_failure(error) is None
