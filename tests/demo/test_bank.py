"""A bank does a named step once."""

from __future__ import annotations

from pathlib import Path

import pytest

from truba.demo.bank import Bank, BankError
from truba.demo.proof import Applied, Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Bank.create(tmp_path / "bank.sqlite", {"Анна-1": 1000, "Ada-1": 0})
    return tmp_path / "bank.sqlite"


def test_a_step_is_done_once_whoever_asks(path: Path) -> None:
    with Bank(path) as worker, Bank(path) as handler:
        assert worker.apply("T1", "Анна-1", -300, by="worker", epoch=0)
        assert not handler.apply("T1", "Анна-1", -300, by="handler", epoch=1)
        assert not worker.apply("T1", "Анна-1", -300, by="worker", epoch=0)
    ledger = Ledger.read(path)
    assert ledger.balances == {"Анна-1": 700, "Ada-1": 0}
    assert ledger.applied == {"T1": Applied("Анна-1", -300, "worker", repeats=2)}


@pytest.mark.parametrize(
    ("transfer", "account", "cents", "why"),
    [
        ("T1", "Анна-1", -299, "was applied as"),
        ("T1", "Ada-1", -300, "was applied as"),
        ("T2", "Анна-1", -701, "too little"),
        ("T2", "nobody", 5, "no account nobody"),
    ],
)
def test_what_is_refused_changes_nothing(path: Path, transfer: str, account: str, cents: int, why: str) -> None:
    with Bank(path) as bank:
        bank.apply("T1", "Анна-1", -300, by="worker", epoch=0)
        before = Ledger.read(path)
        with pytest.raises(BankError, match=why):
            bank.apply(transfer, account, cents, by="worker", epoch=0)
        assert Ledger.read(path) == before
        assert bank.apply("T3", "Ada-1", 1, by="worker", epoch=0)  # the connection is as good as before


def test_commits_are_synced_to_the_disk(path: Path) -> None:
    with Bank(path) as bank:
        assert bank._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)  # noqa: SLF001 - no other way to see it
        assert bank._db.execute("PRAGMA synchronous").fetchone() == (2,)  # noqa: SLF001 - 2 is FULL


def test_a_bank_is_not_made_over_another(path: Path) -> None:
    with pytest.raises(FileExistsError):
        Bank.create(path, {})
