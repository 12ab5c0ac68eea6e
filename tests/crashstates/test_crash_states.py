"""A crash at any point of the log's life leaves the durable prefix, and nothing else is taken for it."""

from __future__ import annotations

import random

import pytest

from tests.crashstates.case import crash_case, sweep
from tests.crashstates.record import Create, MakeDirectory, Rename, Sync, SyncNames, Unlink, Write
from tests.crashstates.states import Kept, Volume


@pytest.mark.parametrize("n", range(6))
def test_crash_states(n: int) -> None:
    crash_case(n)


def test_bytes_of_a_large_log() -> None:
    """Every 331st byte of 256 KiB; all of them in the long version."""
    assert sweep(1, "zeros", 0, 331).cut > 700
    assert sweep(1, "garbage", 0, 331).refused > 700


def images(volume: Volume, seed: int = 1) -> set[tuple[tuple[str, bytes], ...]]:
    states = volume.crashes(random.Random(seed), 1000)
    return {tuple(state.image.items()) for state in states if state.kept is Kept.ALL}


def test_each_unsynced_sector_is_there_or_not() -> None:
    volume = Volume({"/f": bytes(2048)})
    volume.apply(Write(0, 512, b"a" * 1536))
    expected = {
        bytes(512) + first * 512 + second * 512 + third * 512
        for first in (b"a", b"\0")
        for second in (b"a", b"\0")
        for third in (b"a", b"\0")
    }
    assert images(volume) == {(("/f", data),) for data in expected}
    volume.apply(Sync(0))
    assert images(volume) == {(("/f", bytes(512) + b"a" * 1536),)}


def test_a_sector_written_twice_has_three_versions() -> None:
    volume = Volume({"/f": bytes(512)})
    volume.apply(Write(0, 0, b"a" * 512))
    volume.apply(Write(0, 0, b"b" * 10))
    assert {data for ((_, data),) in images(volume)} == {bytes(512), b"a" * 512, b"b" * 10 + b"a" * 502}


def test_names_come_to_the_disk_in_any_order_that_is_possible() -> None:
    volume = Volume({"/a": b"1", "/b": b"2"})
    volume.apply(Unlink("/a", 0))
    volume.apply(Rename("/b", "/c", 1))
    volume.apply(Rename("/c", "/d", 1))
    found = {frozenset(path for path, _ in image) for image in images(volume)}
    assert found == {frozenset(first + second) for first in ((), ("/a",)) for second in (("/b",), ("/c",), ("/d",))}
    volume.apply(SyncNames("/"))
    assert images(volume) == {(("/d", b"2"),)}


def test_a_file_that_grew_may_be_shorter_or_show_what_was_there_before() -> None:
    volume = Volume({})
    volume.apply(Create("/f", 0))
    volume.apply(Write(0, 0, b"a" * 1000))
    found = {image for seed in range(50) for image in images(volume, seed)}
    assert () in found
    assert (("/f", b""),) in found
    assert (("/f", b"a" * 1000),) in found
    assert (("/f", bytes(1000)),) in found
    contents = [dict(image).get("/f", b"") for image in found]
    assert any(set(data) - set(b"a\0") for data in contents), "no garbage"


def test_what_lies_in_a_directory_that_is_not_there_is_not_there() -> None:
    volume = Volume({})
    volume.apply(MakeDirectory("/d"))
    volume.apply(Create("/d/f", 0))
    volume.apply(SyncNames("/d"))
    assert images(volume) == {(), (("/d/f", b""),)}
