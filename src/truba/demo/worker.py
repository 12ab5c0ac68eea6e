"""A client worker, of the naive kind: it does one transfer after the other and remembers nothing.

    new (with the plan as first record) -> debit -> append 'debited' -> credit -> append 'credited' -> delete

**The plan is written before the first step.** From the moment New is acknowledged the pipe knows of the transfer, and
this process may die anywhere. It never looks back: what its predecessor left half done is none of its business.

**The record after a step spares work, it does not decide.** A worker may die between the debit and the record that
says so, so nobody may conclude "no record, hence not debited". What makes the second try harmless is the bank, which
does a step once for each transfer id (see `truba.demo.bank`). It also covers the opposite case: a worker that was
paused, lost its session to the handler meanwhile, and still has its next debit in hand when it wakes up.

Orders come on stdin, one JSON document a line; each is answered on stdout by `taken` once New is acknowledged, which
is when whoever gave the order may forget it, and then by `done`, or by `lost` when the session is another's now.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import truba
from truba.demo.bank import Banks
from truba.demo.transfers import CREDITED, DEBITED, KIND, Transfer
from truba.errors import OperationError

STEP_S = 0.004
"""A pause before each step: it stands for the network between a worker and a bank that is not a file next door."""

GRACE_S = 1.0
"""How long the pipe keeps a broken connection's sessions: enough to come back when it was the pipe that died."""

CONNECT_TIMEOUT_S = 60.0
"""For a pipe that is down just then: longer than any that is started again needs."""

POINTS = (
    "before new",
    "after new",
    "before debit",
    "after debit",
    "after 'debited'",
    "after credit",
    "after 'credited'",
    "after delete",
)
"""Where a worker can be told to die: between any two steps."""


class Session(Protocol):
    """What a worker needs of a session."""

    @property
    def epoch(self) -> int: ...
    def append(self, record: bytes, /) -> None: ...
    def delete(self) -> None: ...


class Pipe(Protocol):
    def new(self, kind: int, record: bytes, /) -> Session: ...


class NoPipe:
    """The same world without a pipe: it agrees to everything and keeps nothing."""

    epoch = 0

    def new(self, kind: int, record: bytes, /) -> NoPipe:
        return self

    def append(self, record: bytes, /) -> None: ...

    def delete(self) -> None: ...


def move(transfer: Transfer, pipe: Pipe, banks: Banks, die: str) -> None:
    """One transfer. `die`: the point at which this process kills itself, if any."""

    def reach(point: str) -> None:
        if point == die:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(STEP_S)

    reach("before new")
    session = pipe.new(KIND, transfer.to_record())
    reach("after new")
    say("taken", transfer)
    reach("before debit")
    banks.debit(transfer, by="worker", epoch=session.epoch)
    reach("after debit")
    session.append(DEBITED)
    reach("after 'debited'")
    banks.credit(transfer, by="worker", epoch=session.epoch)
    reach("after credit")
    session.append(CREDITED)
    reach("after 'credited'")
    session.delete()
    reach("after delete")


def say(what: str, transfer: Transfer, detail: str = "") -> None:
    print(f"{what} {transfer.id} {detail}\n", end="", flush=True)  # noqa: T201 - the answer to an order


def connected(urls: Sequence[str]) -> AbstractContextManager[Pipe]:
    if not urls:
        return nullcontext(NoPipe())
    return truba.sync.connect(urls, grace_s=GRACE_S, connect_timeout_s=CONNECT_TIMEOUT_S)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("banks", type=Path)
    parser.add_argument("--pipe", nargs="+", default=(), help="URLs of its nodes; without it, work without a pipe")
    options = parser.parse_args()
    with Banks(options.banks) as banks, connected(options.pipe) as pipe:
        for line in sys.stdin:
            order = json.loads(line)
            transfer = Transfer(**order["transfer"])
            try:
                move(transfer, pipe, banks, order["die"])
            except OperationError as error:
                # Refused, or another's by now. Either way it is not this worker's any more.
                say("lost", transfer, error.code)
            else:
                say("done", transfer)


if __name__ == "__main__":
    main()
