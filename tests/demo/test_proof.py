"""The proof fails for each way in which money can go wrong."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from truba.demo.bank import Banks
from truba.demo.proof import prove
from truba.demo.transfers import bundled

WORK = bundled(20)


@pytest.fixture
def banks(tmp_path: Path) -> Path:
    """Both banks after all the work; the handler did the credit of the first transfer."""
    Banks.create(tmp_path, WORK)
    with Banks(tmp_path) as both:
        for transfer in WORK:
            both.debit(transfer, by="worker", epoch=0)
            both.credit(transfer, by="handler" if transfer is WORK[0] else "worker", epoch=0)
    return tmp_path


def change(directory: Path, bank: str, statement: str) -> None:
    with closing(sqlite3.connect(directory / f"bank-{bank}.sqlite")) as db, db:
        assert db.execute(statement).rowcount == 1


def test_it_holds_when_all_is_done_once(banks: Path) -> None:
    proof = prove(banks, WORK)
    assert proof.holds
    assert (proof.debited, proof.credited, proof.never_begun, proof.missing_cents) == (20, 20, 0, 0)
    assert (proof.debited_by_handler, proof.credited_by_handler, proof.touched_by_handler) == (0, 1, 1)
    assert proof.as_dict()["holds"] is True


def test_repeats_are_counted_and_harm_nothing(banks: Path) -> None:
    with Banks(banks) as both:
        both.debit(WORK[3], by="handler", epoch=1)
        both.credit(WORK[3], by="handler", epoch=1)
    assert prove(banks, WORK).repeats == 2
    assert prove(banks, WORK).holds


def test_half_a_transfer_is_money_missing(tmp_path: Path) -> None:
    Banks.create(tmp_path, WORK)
    with Banks(tmp_path) as both:
        for transfer in WORK[:-1]:
            both.debit(transfer, by="worker", epoch=0)
            if transfer is not WORK[7]:
                both.credit(transfer, by="worker", epoch=0)
    proof = prove(tmp_path, WORK)
    assert not proof.holds
    assert (proof.debited_never_credited, proof.never_begun) == (1, 1)
    assert proof.missing_cents == WORK[7].amount_cents
    assert any("bank B: 2 transfers were never applied: T0008, T0020" in line for line in proof.broken)


@pytest.mark.parametrize(
    ("bank", "statement", "said"),
    [
        ("a", "DELETE FROM applied WHERE transfer = 'T0001'", "bank A: 1 transfers were never applied: T0001"),
        ("b", "UPDATE applied SET cents = cents + 1 WHERE transfer = 'T0001'", "bank B: 1 transfers were applied with"),
        (
            "b",
            f"INSERT INTO applied VALUES ('X', '{WORK[0].to_account}', 1, 'worker', 0, 0)",
            "bank B: 1 transfers that nobody ordered: X",
        ),
        # Applied twice, though the table says once: only the balances can tell.
        ("a", f"UPDATE accounts SET cents = cents - 1 WHERE name = '{WORK[0].from_account}'", "bank A: 1 balances"),
        ("b", f"UPDATE accounts SET cents = cents + 1 WHERE name = '{WORK[0].to_account}'", "bank B: 1 balances"),
        ("b", "INSERT INTO accounts VALUES ('stranger', 5)", "bank B: 1 balances are not what the transfers make them"),
    ],
)
def test_one_wrong_cell_breaks_it(banks: Path, bank: str, statement: str, said: str) -> None:
    change(banks, bank, statement)
    proof = prove(banks, WORK)
    assert not proof.holds
    assert len(proof.broken) == 1
    assert proof.broken[0].startswith(said)
