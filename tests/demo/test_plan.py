"""What is planned before anybody is killed: the work, who dies where, what is given out again."""

from __future__ import annotations

import asyncio
from collections import Counter
from importlib.resources import files
from itertools import islice

import pytest

from truba.demo import make_transfers
from truba.demo.killer import Killer
from truba.demo.orders import Orders
from truba.demo.transfers import OPENING_CENTS, Transfer, bundled
from truba.demo.worker import POINTS


def test_the_bundled_file_is_what_its_script_makes(capsys: pytest.CaptureFixture[str]) -> None:
    make_transfers.main()
    assert capsys.readouterr().out == files("truba.demo").joinpath("transfers.csv").read_text()


def test_the_bundled_transfers_can_all_be_done() -> None:
    work = bundled()
    assert len({transfer.id for transfer in work}) == len(work) == 2000
    owed: Counter[str] = Counter()
    for transfer in work:
        assert transfer.amount_cents > 0
        owed[transfer.from_account] += transfer.amount_cents
    assert max(owed.values()) <= OPENING_CENTS


def test_a_record_holds_the_whole_transfer() -> None:
    transfer = bundled(1)[0]
    assert transfer.to_record().startswith(b"planned {")
    assert Transfer.from_record(transfer.to_record()) == transfer


@pytest.mark.parametrize("count", [50, 150, 2000])
@pytest.mark.parametrize("seed", range(5))
def test_each_gap_is_hit_in_every_run(count: int, seed: int) -> None:
    work = bundled(count)
    deaths = Killer(seed).deaths(work)
    by_point = Counter(deaths.values())
    assert set(by_point) == set(POINTS)
    assert len(set(by_point.values())) == 1
    assert deaths.keys() <= {transfer.id for transfer in work}


def test_a_seed_is_a_plan() -> None:
    def plan(seed: int) -> object:
        killer = Killer(seed)
        return killer.deaths(bundled()), list(islice(killer.blows(), 20)), killer.victim(range(1000))

    assert plan(3) == plan(3) != plan(4)


async def test_what_was_not_taken_is_given_out_again() -> None:
    first, second = bundled(2)
    orders = Orders([first, second], {first.id: "before new"})
    one, two = await orders.next(), await orders.next()
    assert one is not None
    assert two is not None
    assert (one.die, two.die) == ("before new", "")
    orders.take(two)
    waiting = asyncio.create_task(orders.next())
    await asyncio.sleep(0)
    assert not waiting.done()  # the first may still come back
    orders.drop(one)
    again = await waiting
    assert again is not None
    assert (again.transfer, again.die, orders.given_again) == (first, "", 1)
    orders.take(again)
    assert await orders.next() is None


async def test_what_was_taken_never_comes_back() -> None:
    orders = Orders(bundled(1), {})
    order = await orders.next()
    assert order is not None
    orders.take(order)
    orders.drop(order)
    assert await orders.next() is None
    assert (orders.taken, orders.given_again) == (1, 0)
