"""A client that writes sessions through one connection until the pipe is gone, and notes what it was told.

    python -m tests.service.writer HOST PORT NUMBER NOTES

Each line of NOTES is one JSON array, written before a request is sent (`["try", ...]`) or after its answer came
(`["ok", ...]`, `["no", ...]`). A session's records are `name/0`, `name/1` ..., so that they say themselves where
they belong. Requests are pipelined in small groups. It ends by itself when the connection breaks.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from typing import Any, TextIO

from tests.service.wire import Refused, Wire, Word, request


class Writer:
    """One connection's work."""

    def __init__(self, wire: Wire, number: int, notes: TextIO) -> None:
        self.wire = wire
        self.number = number
        self.notes = notes
        self.dice = random.Random(number)
        self.made = 0

    def run(self) -> None:
        while True:
            self.session()

    def session(self) -> None:
        name = f"{self.number}.{self.made}"
        self.made += 1
        count = self.dice.randrange(3)
        first = [f"{name}/{at}" for at in range(count)]
        self.note("try", name, "new", first)
        made = self.tell("ok", name, "new", self.wire.answered(request("NEW", 7, *first)))
        if made is None:
            return
        steps: list[tuple[str, list[str]]] = []
        for _ in range(self.dice.randrange(6)):
            records = [f"{name}/{count + more}" for more in range(self.dice.randrange(1, 4))]
            count += len(records)
            steps.append(("append", records))
        if self.dice.random() < 0.3:
            steps.append(("replace", [f"{name}/{count}"]))
        if (end := self.dice.random()) < 0.5:
            steps.append(("delete", []))
        elif end < 0.8:
            steps.append(("store", []))
        data = b""
        for verb, records in steps:
            self.note("try", name, verb, records)
            words: list[Word] = [verb.upper(), made, *(["3600"] if verb == "store" else records)]
            data += request(*words)
        self.wire.send(data)
        for verb, _ in steps:
            self.tell("ok", name, verb, self.wire.outcome())

    def tell(self, what: str, name: str, verb: str, outcome: Any) -> bytes | None:
        if isinstance(outcome, Refused):
            assert outcome.code == "UNAVAILABLE", outcome
            self.note("no", name, verb)
            return None
        self.note(what, name, verb, outcome.decode())
        return bytes(outcome)

    def note(self, *what: object) -> None:
        # One write: a line is there or not, whoever is killed.
        self.notes.write(json.dumps(what) + "\n")
        self.notes.flush()


def main(host: str, port: str, number: str, path: str) -> None:
    with open(path, "a") as notes, Wire.dial((host, int(port))) as wire, contextlib.suppress(OSError):  # noqa: PTH123
        Writer(wire, int(number), notes).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
