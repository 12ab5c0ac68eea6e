"""Random histories: RocksDB, with reopening in between, agrees with the plain dictionaries."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from truba.ports.store import DueKey, Head, Put, Remove, staged_all
from truba.store.memory import MemoryStore
from truba.store.rocks import RocksStore
from truba.testing.store import contents, make_head, summary
from truba.types import Cause, Phase

numbers = st.integers(1, 10) | st.sampled_from([255, 256, 257, 70_000])  # more than a byte, and than two
records = st.lists(st.binary(max_size=20), min_size=1, max_size=4)
fields = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([7, 8]),
        "phase": st.sampled_from(Phase),
        "due_ms": st.integers(0, 5) | st.integers(0, 2**41),
        "order": st.integers(0, 6),
        "epoch": st.integers(0, 3),
        "cause": st.sampled_from(Cause),
        "detail": st.text(max_size=5),
    }
)


@dataclass(frozen=True)
class Write:
    """A session as some checkpoint may find it: other fields, perhaps new records, perhaps the earlier ones dropped."""

    number: int
    fields: dict[str, Any]
    records: list[bytes] | None
    replace: bool

    def change(self, was: Head | None) -> Put:
        fields = self.fields if was is None else self.fields | {"kind": was.kind}  # a session never changes its kind
        start = was.next if was else 0
        kept = was.chunks if was and not self.replace else ()
        if self.records is None:
            return Put(make_head(self.number, next=start, chunks=kept, **fields), was, None)
        head = make_head(self.number, next=start + len(self.records), chunks=(*kept, start), **fields)
        return Put(head, was, (start, self.records))


writes = st.builds(Write, numbers, fields, records | st.none(), st.booleans())


class Agreement(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.rocks = RocksStore.open(Path(self.place.name))
        self.plain = MemoryStore()
        self.seq = 0

    @rule(
        put=st.lists(writes, max_size=6, unique_by=lambda write: write.number),
        removed=st.sets(numbers, max_size=3),
    )
    def commit(self, put: list[Write], removed: set[int]) -> None:
        changes: list[Put | Remove] = [w.change(self.plain.get(w.number)) for w in put if w.number not in removed]
        changes += [Remove(was) for number in removed if (was := self.plain.get(number)) is not None]
        self.seq += 1
        for store in (self.plain, self.rocks):
            store.commit(staged_all(store, changes), summary(self.seq, active=self.seq))

    @rule()
    def reopen(self) -> None:
        self.rocks.close()
        self.rocks = RocksStore.open(Path(self.place.name))

    @rule(
        kind=st.sampled_from([7, 8, 9]),
        after=st.builds(DueKey, st.integers(0, 6), st.integers(0, 6), numbers),
        limit=st.integers(0, 4),
        number=st.integers(-1, 11) | numbers,
    )
    def look(self, kind: int, after: DueKey, limit: int, number: int) -> None:
        assert self.rocks.due(kind, after, limit) == self.plain.due(kind, after, limit)
        assert list(self.rocks.scan(number)) == list(self.plain.scan(number))
        found: Head | None = self.rocks.get(max(number, 0))
        assert found == self.plain.get(max(number, 0))

    @invariant()
    def same(self) -> None:
        assert contents(self.rocks) == contents(self.plain)

    def teardown(self) -> None:
        if hasattr(self, "rocks"):
            self.rocks.close()
            self.place.cleanup()


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(
    max_examples=50, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
