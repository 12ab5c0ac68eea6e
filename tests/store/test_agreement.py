"""Random histories: RocksDB, with reopening in between, agrees with the plain dictionaries."""

from __future__ import annotations

import tempfile
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

numbers = st.integers(1, 12)
records = st.lists(st.binary(max_size=20), min_size=1, max_size=4)
heads = st.fixed_dictionaries(
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


class Agreement(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.rocks = RocksStore.open(Path(self.place.name))
        self.plain = MemoryStore()
        self.seq = 0
        self.changes: dict[int, Put | Remove] = {}

    @rule(number=numbers, fields=heads, new=records | st.none(), replace=st.booleans())
    def put(self, number: int, fields: dict[str, Any], new: list[bytes] | None, replace: bool) -> None:
        was = self.plain.get(number)
        if was is not None:
            fields = fields | {"kind": was.kind}  # a session never changes its kind
        start, kept = (was.next, was.chunks) if was else (0, ())
        if replace:
            kept = ()
        chunk = None if new is None else (start, new)
        chunks = kept if new is None else (*kept, start)
        head = make_head(number, next=start + len(new or ()), chunks=chunks, **fields)
        self.changes[number] = Put(head, was, chunk)

    @rule(number=numbers)
    def remove(self, number: int) -> None:
        was = self.plain.get(number)
        if was is not None:
            self.changes[number] = Remove(was)

    @rule()
    def commit(self) -> None:
        self.seq += 1
        for store in (self.plain, self.rocks):
            store.commit(staged_all(store, self.changes.values()), summary(self.seq, active=self.seq))
        self.changes = {}

    @rule()
    def reopen(self) -> None:
        self.rocks.close()
        self.rocks = RocksStore.open(Path(self.place.name))

    @rule(
        kind=st.sampled_from([7, 8, 9]),
        after=st.builds(DueKey, st.integers(0, 6), st.integers(0, 6), numbers),
        limit=st.integers(0, 4),
        number=st.integers(-1, 13),
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
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
