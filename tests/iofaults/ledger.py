"""What clients were told, and what may therefore be found after a restart.

An acknowledged operation is there; one whose outcome is unknown is there wholly or not at all, and none that came
after it is there without it. Independent of the pipe's code: it knows sessions by the names in their records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Verb = Literal["new", "append", "replace", "delete", "store"]
Records = list[bytes]


@dataclass
class Job:
    """One session as its client knows it."""

    name: bytes
    id: str = ""  # as acknowledged
    records: Records = field(default_factory=list)
    begun: bool = False
    gone: bool = False
    stored: bool = False
    open: list[tuple[Verb, Records]] = field(default_factory=list)  # asked for, no answer yet, in order
    unknown: bool = False  # one of `open` was answered so: nothing after it may be acknowledged

    def ask(self, verb: Verb, records: Records) -> None:
        self.open.append((verb, records))

    def acknowledged(self, told_id: str = "") -> None:
        """The oldest open request was answered: done."""
        assert not self.unknown, f"{self.name!r}: {self.open[0]} is acknowledged after an unknown outcome"
        verb, records = self.open.pop(0)
        match verb:
            case "new":
                self.begun, self.id = True, told_id
                self.records = list(records)
            case "append":
                self.records = [*self.records, *records]
            case "replace":
                self.records = list(records)
            case "delete":
                self.gone = True
            case "store":
                self.stored = True

    def refused(self) -> None:
        """The oldest open request was answered: nothing was stored."""
        self.open.pop(0)

    def states(self) -> Iterator[Records | None]:
        """What may be found: what was acknowledged, or that and the first open requests, one after the other."""
        state: Records | None = None if self.gone or not self.begun else list(self.records)
        yield state
        for verb, records in self.open:
            match verb:
                case "new" | "replace":
                    state = list(records)
                case "append":
                    state = [*(state or []), *records]
                case "delete":
                    state = None
                case "store":
                    pass
            yield state


def name_of(records: Records) -> bytes:
    """The session that these records belong to, by what they say themselves."""
    return records[0].partition(b"/")[0]


def compare(jobs: Mapping[bytes, Job], found: Mapping[str, Records]) -> None:
    """AssertionError unless what is found (records by id) is what `jobs` may have left.

    A session without records may be gone: with its owner lost there is nothing to recover.
    """
    by_name = {name_of(records): (id_text, records) for id_text, records in found.items() if records}
    assert len(by_name) == sum(map(bool, found.values())), "two sessions hold records of one"
    for name, job in jobs.items():
        id_text, records = by_name.pop(name, ("", []))
        allowed = [state or [] for state in job.states()]
        assert records in allowed, (
            f"session {job.id or name.decode()}: found {_brief(records)}, "
            f"told {_brief(job.records)}{', deleted' if job.gone else ''}, "
            f"open {[(verb, _brief(added)) for verb, added in job.open]}"
        )
        assert not (records and job.id) or id_text == job.id, f"{name.decode()} was {job.id} and is {id_text}"
    assert not by_name, f"found what nobody wrote: {sorted(by_name)}"


def _brief(records: Records) -> list[str]:
    return [record.partition(b":")[0].decode() for record in records]
