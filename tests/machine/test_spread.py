"""Tables in parts: like a dictionary, but for the order, and never with much to lay out anew in one moment."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from truba.machine.spread import LARGE, PARTS, Spread, Table, near_number, near_text, pieces, wider


def test_it_is_a_dictionary_but_for_the_order() -> None:
    dice = random.Random(7)
    plain: dict[int, int] = {number: -number for number in range(1_000)}
    spread: Table[int, int] = Spread(plain, near_number)
    for _ in range(20_000):
        key, value = dice.randrange(3_000) * dice.choice((1, 1_000)), dice.random()
        assert spread.get(key) == plain.get(key)
        assert (key in spread) == (key in plain)
        if value < 0.5:
            spread[key] = plain[key] = key
        elif value < 0.7:
            assert spread.pop(key, None) == plain.pop(key, None)
        elif key in plain:
            assert spread[key] == plain[key]
            del spread[key], plain[key]
        else:
            with pytest.raises(KeyError):
                del spread[key]
            with pytest.raises(KeyError):
                spread[key]
    assert len(spread) == len(plain)
    assert sorted(spread) == sorted(plain)
    assert sorted(spread.values()) == sorted(plain.values())
    for key in list(plain):
        assert spread
        del spread[key]
    assert not spread


@pytest.mark.parametrize("strewn", [False, True], ids=["numbers in order", "numbers like hashes"])
def test_few_entries_are_laid_out_anew_in_one_turn(strewn: bool) -> None:
    """A dictionary does so when its capacity, which doubles, is full: how many entries that is, slice by slice."""
    dice = random.Random(7)
    count, slice_entries = 100_000, 512
    spread: Spread[int, int] = Spread({}, near_number)
    before = [0] * PARTS
    for at in range(0, count, slice_entries):
        for number in range(at, at + slice_entries):
            spread[dice.getrandbits(60) if strewn else number] = number
        now = [*map(len, spread.parts)]
        moved = sum(size for size, earlier in zip(now, before, strict=True) if doubled(size) != doubled(earlier))
        assert moved < 10_000, "a dictionary would be moved as a whole"
        before = now


def doubled(size: int) -> int:
    """How often a dictionary of so many entries has grown, by the rule that it is full when it is so to two thirds."""
    return (3 * size // 2).bit_length()


def test_a_small_table_stays_as_it_is() -> None:
    small = dict.fromkeys(range(LARGE - 1))
    assert wider(small, near_number) is small
    assert pieces(small) == [small]
    small[LARGE] = None
    large = wider(small, near_number)
    assert isinstance(large, Spread)
    assert wider(large, near_number) is large
    assert len(pieces(large)) == PARTS


def test_what_comes_after_each_other_stays_together() -> None:
    """As an owner holds it: printed ids. Strewn, a million sessions are given back, and written, at half the speed."""
    ids = [b"3-%d" % number for number in range(100_000, 150_000)]
    spread: Spread[bytes, int] = Spread({}, near_text)
    for at, id_text in enumerate(ids):
        spread[id_text] = at
    found = list(spread.values())
    assert sum(after == before + 1 for before, after in pairwise(found)) >= len(found) * 0.98
