"""A client that keeps several connections busy for a bounded while, and writes down what it was told."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

from tests.iofaults.ledger import Job, Records, Verb
from tests.service.wire import Refused, Wire, Word, request

CONNECTIONS = 3
STORED_S = 3_600  # nothing comes back while a case lasts

Step = tuple[Verb, Records]


class Client:
    """`jobs`: what it was told, by name of the session."""

    def __init__(self, seed: int, prefix: bytes = b"") -> None:
        """`prefix`: of the sessions' names, so that two clients of one pipe have none in common."""
        self.jobs: dict[bytes, Job] = {}
        self.refusals: set[str] = set()  # codes of answers that say: not done
        self._dice = random.Random(seed)
        self._prefix = prefix

    def work(self, address: tuple[str, int], rounds: int) -> bool:
        """So many sessions on each connection; whether the pipe was there to the end. TimeoutError when it hangs."""
        with ExitStack() as stack:
            try:
                wires = [stack.enter_context(Wire.dial(address)) for _ in range(CONNECTIONS)]
                for number in range(rounds):
                    self._round(wires, number)
            except TimeoutError:
                raise
            except OSError:
                return False  # whoever waited for an answer has got none: unknown
        return True

    def _round(self, wires: list[Wire], number: int) -> None:
        """One session on each connection: their requests reach the pipe together, and share batches."""
        lives = [self._life(b"%b%d.%d" % (self._prefix, number, at)) for at in range(len(wires))]
        for (job, steps), wire in zip(lives, wires, strict=True):
            self._send(wire, job, steps[:1])
        for (job, _), wire in zip(lives, wires, strict=True):
            self._hear(wire, job, 1)
        for (job, steps), wire in zip(lives, wires, strict=True):
            if job.begun:
                self._send(wire, job, steps[1:])
        for (job, steps), wire in zip(lives, wires, strict=True):
            if job.begun:
                self._hear(wire, job, len(steps) - 1)

    def _life(self, name: bytes) -> tuple[Job, list[Step]]:
        dice, records = self._dice, self._records(name)
        steps: list[Step] = [("new", [next(records) for _ in range(dice.randrange(3))])]
        steps += [("append", [next(records) for _ in range(dice.randrange(1, 4))]) for _ in range(dice.randrange(1, 5))]
        if dice.random() < 0.3:
            steps.append(("replace", [next(records)]))
        if (end := dice.random()) < 0.5:
            steps.append(("delete", []))
        elif end < 0.8:
            steps.append(("store", []))
        job = self.jobs[name] = Job(name)
        return job, steps

    def _records(self, name: bytes) -> Iterator[bytes]:
        """They say themselves where they belong; their sizes differ, and nothing in them can be compressed."""
        number = 0
        while True:
            size = self._dice.choice((0, 0, 100, 1_000, 9_000))
            yield b"%b/%d:" % (name, number) + self._dice.randbytes(size)
            number += 1

    def _send(self, wire: Wire, job: Job, steps: list[Step]) -> None:
        data = b""
        for verb, records in steps:
            job.ask(verb, records)
            first: Word = 7 if verb == "new" else job.id
            data += request(verb.upper(), first, *([STORED_S] if verb == "store" else records))
        wire.send(data)

    def _hear(self, wire: Wire, job: Job, count: int) -> None:
        for _ in range(count):
            outcome = wire.outcome()
            if not isinstance(outcome, Refused):
                job.acknowledged(outcome.decode())
            elif outcome.code == "UNKNOWN":
                job.unknown = True
            else:
                assert outcome.code == "UNAVAILABLE", f"{job.name!r}: {outcome}"
                assert "nothing was stored" in str(outcome), outcome
                assert not job.unknown, f"{job.name!r}: refused after an unknown outcome"
                self.refusals.add(outcome.code)
                job.refused()
