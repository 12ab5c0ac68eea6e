"""What the two databases say at the end, read by connections of its own and held against the bundled transfers.

Nothing that a worker, the handler or the pipe said is believed here: only the files of the two banks are.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from truba.demo.bank import BANK_A, BANK_B
from truba.demo.transfers import Transfer, opening_balances

SHOWN_MAX = 5
"""Examples in a sentence."""


@dataclass(frozen=True, slots=True)
class Applied:
    account: str
    cents: int
    by: str
    repeats: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """A bank as its file shows it."""

    balances: Mapping[str, int]
    applied: Mapping[str, Applied]
    entries: int  # rows of `applied`: more than its keys if one transfer stood there twice
    integrity: str  # SQLite's own word, "ok" or what is wrong

    @classmethod
    def read(cls, path: Path) -> Ledger:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT transfer, account, cents, by, repeats FROM applied").fetchall()
            return cls(
                balances=dict(db.execute("SELECT name, cents FROM accounts")),
                applied={transfer: Applied(*fields) for transfer, *fields in rows},
                entries=len(rows),
                integrity=db.execute("PRAGMA integrity_check").fetchone()[0],
            )


@dataclass(frozen=True, slots=True)
class Proof:
    """Counts are transfers, money is cents. `broken` says in words what does not hold; empty: the proof holds."""

    transfers: int
    debited: int
    credited: int
    debited_never_credited: int
    credited_never_debited: int
    never_begun: int
    missing_cents: int
    """Money that left bank A and never reached bank B; negative: money out of nothing."""
    debited_by_handler: int
    credited_by_handler: int
    touched_by_handler: int
    """Transfers with at least one step that the handler did."""
    repeats: int
    """Steps that were asked for again and changed nothing."""
    broken: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.broken

    def as_dict(self) -> dict[str, Any]:
        return {"holds": self.holds, **asdict(self)}


def prove(directory: Path, transfers: Sequence[Transfer]) -> Proof:
    """Read both banks of a directory and judge them."""
    a, b = Ledger.read(directory / BANK_A), Ledger.read(directory / BANK_B)
    ids = {transfer.id for transfer in transfers}
    debited, credited = a.applied.keys() & ids, b.applied.keys() & ids
    by_handler = [{t for t, row in ledger.applied.items() if row.by == "handler"} for ledger in (a, b)]
    opening_a, opening_b = opening_balances(transfers)
    opened = sum(opening_a.values()) + sum(opening_b.values())
    return Proof(
        transfers=len(transfers),
        debited=len(debited),
        credited=len(credited),
        debited_never_credited=len(debited - credited),
        credited_never_debited=len(credited - debited),
        never_begun=len(ids - debited - credited),
        missing_cents=opened - sum(a.balances.values()) - sum(b.balances.values()),
        debited_by_handler=len(by_handler[0]),
        credited_by_handler=len(by_handler[1]),
        touched_by_handler=len(by_handler[0] | by_handler[1]),
        repeats=sum(row.repeats for ledger in (a, b) for row in ledger.applied.values()),
        broken=(
            *_judge("bank A", a, {t.id: (t.from_account, -t.amount_cents) for t in transfers}, opening_a),
            *_judge("bank B", b, {t.id: (t.to_account, t.amount_cents) for t in transfers}, opening_b),
        ),
    )


def _judge(name: str, ledger: Ledger, expected: Mapping[str, tuple[str, int]], opening: Mapping[str, int]) -> list[str]:
    broken = []
    if ledger.integrity != "ok":
        broken.append(f"{name}: the file is damaged: {ledger.integrity}")
    if ledger.entries != len(ledger.applied):
        broken.append(f"{name}: {ledger.entries - len(ledger.applied)} transfers stand there twice")
    if missing := sorted(expected.keys() - ledger.applied.keys()):
        broken.append(f"{name}: {len(missing)} transfers were never applied: {_some(missing)}")
    if foreign := sorted(ledger.applied.keys() - expected.keys()):
        broken.append(f"{name}: {len(foreign)} transfers that nobody ordered: {_some(foreign)}")
    both = expected.keys() & ledger.applied.keys()
    if wrong := sorted(t for t in both if (ledger.applied[t].account, ledger.applied[t].cents) != expected[t]):
        broken.append(f"{name}: {len(wrong)} transfers were applied with another account or amount: {_some(wrong)}")
    # The balances are worked out from the orders, not from `applied`: a step done twice beside that table shows here.
    moved: Counter[str] = Counter()
    for account, cents in expected.values():
        moved[account] += cents
    due = {account: cents + moved[account] for account, cents in opening.items()}
    if off := sorted(
        account for account in due.keys() | ledger.balances if due.get(account) != ledger.balances.get(account)
    ):
        broken.append(f"{name}: {len(off)} balances are not what the transfers make them: {_some(off)}")
    return broken


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN_MAX]) + (", ..." if len(names) > SHOWN_MAX else "")
