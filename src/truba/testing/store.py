"""The suite that every `ports.store.Store` must pass. Subclass it, give it a fixture, and run it with pytest:

    class TestMine(StoreSuite):
        @pytest.fixture
        def reopen(self, tmp_path):
            ...
            yield open_again   # each call closes what it gave before and opens the same data again

A store that forgets when closed sets `keeps_when_closed = False`; its `reopen` is then called once for each test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from truba.ports.store import DueKey, Head, Held, Put, Remove, Store, Summary, staged_all
from truba.types import ORIGIN, Cause, Phase, Position

Reopen = Callable[[], Store]


def make_head(number: int, **fields: Any) -> Head:
    """A plausible head; name only what matters."""
    plain: dict[str, Any] = {
        "term": 1,
        "number": number,
        "kind": 7,
        "phase": Phase.ACTIVE,
        "epoch": 0,
        "created_ms": 1_000,
        "aged_from_ms": 1_000,
        "due_ms": 0,
        "order": 0,
        "attempts": 0,
        "deliveries": 0,
        "cause": Cause.STORED,
        "detail": "",
        "owner": b"",
        "grace_ms": 0,
        "tag": -1,
        "operations": 0,
        "first": 0,
        "next": 0,
        "bytes": 0,
        "chunks": (),
    }
    return Head(**(plain | fields))


def stored(number: int, due_ms: int, order: int | None = None, **fields: Any) -> Head:
    order = number if order is None else order
    return make_head(number, phase=Phase.STORED, due_ms=due_ms, order=order, **fields)


def summary(seq: int, **counts: int) -> Summary:
    """Applied through `seq`; counts of kind 7 by the phase's name."""
    return Summary(Position(1, seq, seq.to_bytes(16, "big")), {(7, Phase(name)): n for name, n in counts.items()})


def commit(store: Store, seq: int, *changes: Put | Remove) -> None:
    store.commit(staged_all(store, changes), summary(seq))


def contents(store: Store) -> dict[str, Any]:
    """All that can be read, for comparison."""
    heads = list(store.scan(-1))
    kinds = sorted({head.kind for head in heads} | {7, 8})
    return {
        "heads": heads,
        "got": [store.get(head.number) for head in heads],
        "chunks": {(head.number, first): store.chunk(head.number, first) for head in heads for first in head.chunks},
        "owned": list(store.owned()),
        "due": {kind: store.due(kind, None, 1_000_000) for kind in kinds},
        "summary": store.summary,
    }


class StoreSuite:
    keeps_when_closed = True

    @pytest.fixture
    def store(self, reopen: Reopen) -> Store:
        return reopen()

    def again(self, store: Store, reopen: Reopen) -> Store:
        return reopen() if self.keeps_when_closed else store

    def now_and_again(self, store: Store, reopen: Reopen) -> Iterator[Store]:
        yield store
        yield self.again(store, reopen)

    def test_an_empty_store_holds_nothing(self, store: Store) -> None:
        assert store.summary == Summary(ORIGIN, {})
        assert store.get(1) is None
        assert store.due(7, None, 10) == []
        assert list(store.owned()) == []
        assert list(store.scan(-1)) == []
        with pytest.raises(KeyError):
            store.chunk(1, 0)

    def test_what_was_put_is_read(self, store: Store, reopen: Reopen) -> None:
        head = make_head(
            5, kind=2**32 - 1, detail="gave up: \u0442", owner=bytes(16), tag=2**63 - 1, next=2, bytes=3, chunks=(0,),
            trace=b"00-1-2-01", left_ms=5, history=(Held(0, 1), Held(1, 2, "truba://h:1", 3, "late", "why")),
        )  # fmt: skip
        store.commit(
            staged_all(store, [Put(head, None, (0, [b"", b"abc"]))]),
            Summary(Position(3, 9, b"c" * 16), {(2**32 - 1, Phase.ACTIVE): 1}, frozenset({7, 2**32 - 1})),
        )
        for found in self.now_and_again(store, reopen):
            assert found.get(5) == head
            assert found.chunk(5, 0) == [b"", b"abc"]
            assert found.summary == Summary(
                Position(3, 9, b"c" * 16), {(2**32 - 1, Phase.ACTIVE): 1}, frozenset({7, 2**32 - 1})
            )
            assert found.summary.applied.chain == b"c" * 16

    def test_nothing_changes_before_the_commit(self, store: Store) -> None:
        staged = store.stage()
        before = staged.bytes
        staged.add(Put(stored(1, 10, chunks=(0,)), None, (0, [bytes(1_000)])))
        assert staged.bytes >= before + 1_000
        assert contents(store)["heads"] == []
        store.commit(staged, summary(1, stored=1))
        assert contents(store)["due"][7] == [DueKey(10, 1, 1)]

    def test_a_change_is_kept_as_it_was_when_added(self, store: Store) -> None:
        head, records = make_head(1, chunks=(0,)), [b"a"]
        staged = store.stage()
        staged.add(Put(head, None, (0, records)))
        head.epoch = 9
        records.append(b"b")
        store.commit(staged, summary(1))
        kept = store.get(1)
        assert kept is not None
        assert kept.epoch == 0
        assert store.chunk(1, 0) == [b"a"]
        kept.epoch = 5
        assert store.get(1) == make_head(1, chunks=(0,))

    def test_fields_of_a_subclass_are_left_out(self, store: Store) -> None:
        class Session(Head, array_like=True, gc=False):
            young: Any = None

        plain = make_head(1)
        session = Session(*msgspec.structs.astuple(plain))
        session.young = object()
        commit(store, 1, Put(session, None, None))
        kept = store.get(1)
        assert type(kept) is Head
        assert kept == plain

    def test_due_sessions_come_by_time_then_order_then_number(self, store: Store, reopen: Reopen) -> None:
        heads = [
            stored(1, 300, 1),
            stored(2, 100, 9),
            stored(3, 100, 2),
            stored(4, 2**40, 3),
            stored(5, 0, 4),
            stored(6, 100, 2),
            stored(7, 1, 1, kind=8),
            stored(8, 1, 1, kind=6),
            make_head(9),
            make_head(10, phase=Phase.PARKED, due_ms=1, order=1),
        ]
        commit(store, 1, *(Put(head, None, None) for head in heads))
        want = [DueKey(0, 4, 5), DueKey(100, 2, 3), DueKey(100, 2, 6), DueKey(100, 9, 2), DueKey(300, 1, 1)]
        want.append(DueKey(2**40, 3, 4))
        for found in self.now_and_again(store, reopen):
            assert found.due(7, None, 100) == want
            assert found.due(7, None, 2) == want[:2]
            assert found.due(7, None, 0) == []
            for place, key in enumerate(want):
                assert found.due(7, key, 100) == want[place + 1 :]
            assert found.due(7, DueKey(100, 3, 0), 2) == want[3:5]  # the mark itself need not be there
            assert found.due(8, None, 9) == [DueKey(1, 1, 7)]
            assert found.due(9, None, 9) == []

    def test_the_indexes_follow_the_phase(self, store: Store) -> None:
        was: Head | None = None
        steps = [
            make_head(1),
            stored(1, 50, 2),
            stored(1, 50, 7),
            stored(1, 20, 8),
            make_head(1, phase=Phase.REPEATING, epoch=1),
            make_head(1, phase=Phase.REPEATING, epoch=1, operations=3),
            stored(1, 90, 12),
            make_head(1, phase=Phase.PARKED, order=14),
            stored(1, 95, 16),
        ]
        for seq, head in enumerate(steps, 1):
            commit(store, seq, Put(head, was, None))
            was = head
            held = head.phase in (Phase.ACTIVE, Phase.REPEATING)
            assert list(store.owned()) == ([head] if held else [])
            due = [DueKey(head.due_ms, head.order, 1)] if head.phase is Phase.STORED else []
            assert store.due(7, None, 10) == due
            assert list(store.scan(0)) == [head]
        commit(store, 99, Remove(steps[-1]))
        assert contents(store) == {
            "heads": [],
            "got": [],
            "chunks": {},
            "owned": [],
            "due": {7: [], 8: []},
            "summary": summary(99),
        }

    def test_chunks_that_the_head_no_longer_names_are_dropped(self, store: Store, reopen: Reopen) -> None:
        one = make_head(1, chunks=(0,), next=2)
        two = make_head(1, chunks=(0, 2), next=3)
        replaced = make_head(1, chunks=(3,), first=3, next=4)
        commit(store, 1, Put(one, None, (0, [b"a", b"b"])))
        commit(store, 2, Put(two, one, (2, [b"c"])))
        assert (store.chunk(1, 0), store.chunk(1, 2)) == ([b"a", b"b"], [b"c"])
        commit(store, 3, Put(replaced, two, (3, [b"d"])))
        found = self.again(store, reopen)
        assert found.chunk(1, 3) == [b"d"]
        for first in (0, 2):
            with pytest.raises(KeyError):
                found.chunk(1, first)
        commit(found, 4, Remove(replaced))
        with pytest.raises(KeyError):
            found.chunk(1, 3)
        assert found.get(1) is None

    def test_scan_and_owned_go_by_number(self, store: Store) -> None:
        numbers = [3, 255, 256, 257, 65_536, 2**32, 2**63, *range(1_000, 1_700)]
        heads = {n: stored(n, n % 5) if n % 3 == 0 else make_head(n) for n in numbers}
        commit(store, 1, *(Put(head, None, None) for head in heads.values()))
        ordered = sorted(numbers)
        assert [head.number for head in store.scan(-1)] == ordered
        assert [head.number for head in store.scan(0)] == ordered
        assert [head.number for head in store.scan(256)] == [n for n in ordered if n > 256]
        assert list(store.scan(2**63)) == []
        assert list(store.owned()) == [heads[n] for n in ordered if n % 3]

    def test_an_empty_commit_moves_the_summary(self, store: Store, reopen: Reopen) -> None:
        commit(store, 4)
        assert self.again(store, reopen).summary == summary(4)

    def test_closing_twice_does_nothing(self, store: Store) -> None:
        store.close()
        store.close()
