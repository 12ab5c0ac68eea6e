"""One bank: accounts and what was applied to them, in one SQLite file (WAL, synchronous=FULL).

Everything hangs on one habit, so copy it: **a step is named, and a bank does a named step once.** The name is the
transfer's id, a primary key written in the same transaction as the balance. Done again, by a handler that cannot know
whether its predecessor got that far, or by a worker that was paused for a while and wakes up late, the step finds its
name taken and changes nothing.

That is enough here because everybody who touches a transfer wants the same: to complete it. Where a handler *undoes*
instead, a late step would be a new one; then the table must also keep the highest `session.epoch` seen for each
transfer, the handler raises it first, and a step with a lower epoch is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from truba.demo.transfers import Transfer, opening_balances

BANK_A = "bank-a.sqlite"
BANK_B = "bank-b.sqlite"

BUSY_TIMEOUT_S = 30.0
"""How long a step waits for its turn: SQLite has one writer at a time, and a disk may take milliseconds for each."""

SCHEMA = """
CREATE TABLE accounts (
    name  TEXT PRIMARY KEY,
    cents INTEGER NOT NULL CHECK (cents >= 0)
) STRICT;
CREATE TABLE applied (
    transfer TEXT PRIMARY KEY,
    account  TEXT NOT NULL REFERENCES accounts (name),
    cents    INTEGER NOT NULL,
    by       TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    repeats  INTEGER NOT NULL DEFAULT 0  -- how often it was asked for again, in vain
) STRICT;
"""


class BankError(Exception):
    """The step was refused; nothing changed."""


class Bank:
    """A connection to a bank. Not shared between threads."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", BUSY_TIMEOUT_S, isolation_level=None, uri=True
        )
        self._db.executescript("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")

    @classmethod
    def create(cls, path: Path, balances: Mapping[str, int]) -> None:
        """A new bank with these accounts, in cents."""
        path.touch(exist_ok=False)
        with cls(path) as bank:
            bank._db.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)
            with bank._transaction() as db:
                db.executemany("INSERT INTO accounts VALUES (?, ?)", balances.items())

    def apply(self, transfer: str, account: str, cents: int, *, by: str, epoch: int) -> bool:
        """Change a balance by `cents` (negative: a debit) once for this transfer, durably before it returns.

        False: it was done before, nothing changed. BankError: the id was used for something else, there is no such
        account, or it holds too little.
        """
        with self._transaction() as db:
            row = db.execute("SELECT account, cents FROM applied WHERE transfer = ?", (transfer,)).fetchone()
            if row is not None:
                if row != (account, cents):
                    raise BankError(f"transfer {transfer} was applied as {row}, not as {(account, cents)}")
                db.execute("UPDATE applied SET repeats = repeats + 1 WHERE transfer = ?", (transfer,))
                return False
            try:
                changed = db.execute("UPDATE accounts SET cents = cents + ? WHERE name = ?", (cents, account)).rowcount
            except sqlite3.IntegrityError as error:
                raise BankError(f"account {account} holds too little for transfer {transfer}") from error
            if not changed:
                raise BankError(f"no account {account}")
            db.execute(
                "INSERT INTO applied (transfer, account, cents, by, epoch) VALUES (?, ?, ?, ?, ?)",
                (transfer, account, cents, by, epoch),
            )
            return True

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Bank:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Banks:
    """Both banks, and the two steps of a transfer. A context manager; not shared between threads."""

    def __init__(self, directory: Path) -> None:
        self._a = Bank(directory / BANK_A)
        self._b = Bank(directory / BANK_B)

    @staticmethod
    def create(directory: Path, transfers: Iterable[Transfer]) -> None:
        balances_a, balances_b = opening_balances(transfers)
        Bank.create(directory / BANK_A, balances_a)
        Bank.create(directory / BANK_B, balances_b)

    def debit(self, transfer: Transfer, *, by: str, epoch: int) -> bool:
        """Take the money from bank A, once. False: it was taken before."""
        return self._a.apply(transfer.id, transfer.from_account, -transfer.amount_cents, by=by, epoch=epoch)

    def credit(self, transfer: Transfer, *, by: str, epoch: int) -> bool:
        """Give the money to bank B, once. False: it was given before."""
        return self._b.apply(transfer.id, transfer.to_account, transfer.amount_cents, by=by, epoch=epoch)

    def close(self) -> None:
        self._a.close()
        self._b.close()

    def __enter__(self) -> Banks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
