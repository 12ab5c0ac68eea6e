"""Writes `transfers.csv` anew, the same bytes every time: `python -m truba.demo.make_transfers > transfers.csv`.

Accounts of bank A are named in Cyrillic, those of bank B in Latin script, so a mix-up would be seen at once.
"""

from __future__ import annotations

import csv
import random
import sys

TRANSFERS = 2000
SEED = 1703
# ruff: noqa: RUF001 - names in two scripts are the point
FROM = ("Анна", "Борис", "Вера", "Глеб", "Дарья", "Егор", "Жанна", "Захар", "Инна", "Кирилл", "Лидия", "Макар")
TO = ("Ada", "Blaise", "Carl", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Ivan", "John", "Kathleen", "Leslie")
BRANCHES = 5


def main() -> None:
    dice = random.Random(SEED)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("id", "from_account", "to_account", "amount_cents"))
    for number in range(1, TRANSFERS + 1):
        out.writerow(
            (
                f"T{number:04}",
                f"{dice.choice(FROM)}-{dice.randint(1, BRANCHES)}",
                f"{dice.choice(TO)}-{dice.randint(1, BRANCHES)}",
                # Mostly small, some large, and no two alike for long: a lost or doubled one shows in the sums.
                round(10 ** dice.uniform(2, 5.5)),
            )
        )


if __name__ == "__main__":
    main()
