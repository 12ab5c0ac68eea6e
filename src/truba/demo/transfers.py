"""The work: transfers from an account of bank A to one of bank B, and how one is written into a record."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.resources import files

KIND = 7
"""The kind of client that moves money."""

PLANNED = b"planned "
DEBITED = b"debited"
CREDITED = b"credited"
"""The records of a transfer, in this order: what is meant to happen, then what has happened."""

OPENING_CENTS = 5_000_000
"""What each account of bank A holds at first: more than all its transfers together. Those of bank B hold nothing."""


@dataclass(frozen=True, slots=True)
class Transfer:
    id: str
    from_account: str
    to_account: str
    amount_cents: int

    def to_record(self) -> bytes:
        """All that a handler needs to do the transfer, even if nobody else is left who knows of it."""
        return PLANNED + json.dumps(asdict(self), ensure_ascii=False).encode()

    @classmethod
    def from_record(cls, record: bytes) -> Transfer:
        return cls(**json.loads(record.removeprefix(PLANNED)))


def bundled(count: int | None = None) -> tuple[Transfer, ...]:
    """The transfers of the bundled file, the first `count` of them."""
    text = files("truba.demo").joinpath("transfers.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    transfers = tuple(
        Transfer(row["id"], row["from_account"], row["to_account"], int(row["amount_cents"])) for row in rows
    )
    return transfers[:count]


def opening_balances(transfers: Iterable[Transfer]) -> tuple[dict[str, int], dict[str, int]]:
    """Account -> cents before the first transfer, for bank A and for bank B."""
    listed = list(transfers)
    return {t.from_account: OPENING_CENTS for t in listed}, {t.to_account: 0 for t in listed}
