"""A process that measures. It is given orders on stdin and answers each on stdout, a line of JSON either way.

The first line is the worker's setup, a value of its own type. End of file ends it. What goes wrong comes back as a
`Trouble`, which `Worker` raises again as the same error of truba; anything else is a bug and leaves its traceback on
stderr.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, TypeVar

import msgspec

from truba import errors
from truba.errors import TrubaError
from truba.tls import HandshakeFailed

STOP_S = 10.0
"""A worker that was told to end has this long to finish the sessions that it holds."""

T = TypeVar("T")


class Order(msgspec.Struct, frozen=True, tag="order"):
    """Measure once."""

    clients: int
    warm_s: float  # first, not counted
    measure_s: float
    rate_per_s: float | None = None  # operations are due at this rate, whatever the pipe does; None: as fast as it goes


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """What came of it."""

    seconds: float
    counts: dict[int, int]  # microseconds -> operations that took that long
    load_cpu: float  # share of one processor that the process of the clients used
    pipe_user_us: float | None  # of the pipe's process, for each operation; None: it cannot be seen
    pipe_system_us: float | None
    others_cpu: float | None  # share of one processor that everything else on the machine used; None: not known

    @property
    def operations(self) -> int:
        return sum(self.counts.values())

    @property
    def rate_per_s(self) -> float:
        return self.operations / self.seconds


class Trouble(msgspec.Struct, frozen=True, tag="trouble"):
    """It could not be measured: name of a class in `truba.errors`, or HandshakeFailed, and what it says."""

    error: str
    text: str

    def raised(self) -> Exception:
        if self.error == HandshakeFailed.__name__:
            return HandshakeFailed(self.text)
        known = getattr(errors, self.error, TrubaError)
        return known(self.text) if issubclass(known, TrubaError) else TrubaError(self.text)


# -- inside the worker ---------------------------------------------------------------------------------------------


def receive(kind: type[T], source: BinaryIO | None = None) -> T | None:
    """The next line of stdin as a value of that type; None at its end."""
    line = (source or sys.stdin.buffer).readline()
    return msgspec.json.decode(line, type=kind) if line else None


def answer(value: Measure | Trouble) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def trouble(error: TrubaError | OSError) -> Trouble:
    """What can be said of an error on the other side."""
    if isinstance(error, OSError) and not isinstance(error, HandshakeFailed):
        where = f"{error.filename}: " if error.filename else ""
        return Trouble("TrubaError", f"{where}{error.strerror or error}")
    return Trouble(type(error).__name__, str(error))


# -- outside ---------------------------------------------------------------------------------------------------------


class Worker:
    """A running worker: `with` it. It is ended by its process id, in whatever way the block ends."""

    def __init__(self, module: str, setup: msgspec.Struct) -> None:
        # A process group of its own: Ctrl-C reaches the parent only, which then tells the worker to end.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        self._module = module
        self._setup: msgspec.Struct | None = setup

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        end(self._process, gently=kind is None)

    def measure(self, order: Order) -> Measure:
        """TrubaError, HandshakeFailed: what went wrong in the worker."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        try:
            if self._setup is not None:
                process.stdin.write(msgspec.json.encode(self._setup) + b"\n")
                self._setup = None
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            pass  # it has ended; why is told below, as if it had ended after the order
        if not line:
            code = process.wait()
            raise TrubaError(f"{self._module} (process {process.pid}) ended with {how(code)} before it had measured")
        result = msgspec.json.decode(line, type=Measure | Trouble)
        if isinstance(result, Trouble):
            raise result.raised()
        return result


def end(process: subprocess.Popen[bytes], *, gently: bool = False) -> int:
    """End a child: by the end of its stdin if gently, else by SIGTERM, and if that does not help by SIGKILL."""
    try:
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended already
                process.stdin.close()
        if not (gently and process.stdin is not None):
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(STOP_S)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(STOP_S)
        process.kill()
        return process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def raise_file_limit(files: int) -> None:
    """Let this process and its children have that many files open. TrubaError when the system does not."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files:
        return
    if hard != resource.RLIM_INFINITY and hard < files:
        raise TrubaError(f"{files} open files are needed, and this system allows {hard}: take fewer --clients")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def quiet_environment() -> dict[str, str]:
    """This one's, without settings that would change what a child does."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TRUBA_")}
