"""Sizes, times and addresses: what is read, what is refused, and that printing and reading agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truba.address import Address, address
from truba.config.units import rate_per_s, seconds, size_bytes, size_text, time_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64MiB", 64 << 20),
        ("1GB", 10**9),
        ("1.5KiB", 1536),
        ("7", 7),
        ("7B", 7),
        (4096, 4096),
        (0, 0),
        ("2 TiB", 2 << 40),
    ],
)
def test_sizes(text: object, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "MiB", "-1MiB", "64mib", "1.3B", "1e3", True, 1.5, -1, None, [], "64 MiB x"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        size_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("1m30s", 90), ("7d", 604_800), ("250ms", 0.25), ("1.5h", 5400), (5, 5), (0.5, 0.5), ("0s", 0)],
)
def test_times(text: object, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    ["", "5", "5x", "30s1m", "1m1m", "-5s", "5 s", "999999999999999d", True, -1, float("inf"), float("nan"), None],
)
def test_what_is_no_time(text: object) -> None:
    with pytest.raises(ValueError, match="time"):
        seconds(text)


@pytest.mark.parametrize("text", ["365001d", "999999999999999d", 3.2e10, float("inf"), 10**400])
def test_no_time_is_more_than_a_due_time_has_room_for(text: object) -> None:
    assert seconds("365000d") == seconds(365_000 * 86_400)
    with pytest.raises(ValueError, match=r"more than a thousand years.*at most \"365000d\""):
        seconds(text)


@pytest.mark.parametrize(("text", "expected"), [("100/s", 100), ("30/m", 0.5), ("9 / h", 0.0025), ("0.5/s", 0.5)])
def test_rates(text: str, expected: float) -> None:
    assert rate_per_s(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5", "5/x", "0/s", "0.0/h", "-1/s", "s/5", "5/s/s", 5, None, "1e3/s", "1/2s"])
def test_what_is_no_rate(text: object) -> None:
    with pytest.raises(ValueError, match="rate"):
        rate_per_s(text)


@pytest.mark.parametrize("text", ["127.0.0.1:7433", "[::1]:7433", "host.example:1"])
def test_addresses_print_as_they_read(text: str) -> None:
    assert str(address(text)) == text
    assert address("[::1]:7") == Address("::1", 7)


@pytest.mark.parametrize("text", ["", "7433", ":7433", "host:", "host:x", "host:65536", "::1:7433", 7433, None])
def test_what_is_no_address(text: object) -> None:
    with pytest.raises(ValueError, match="address"):
        address(text)


@given(st.integers(0, 2**50))
def test_a_printed_size_reads_back(size: int) -> None:
    assert size_bytes(size_text(size)) == size


@given(st.integers(0, 10**12))
def test_a_printed_time_reads_back(time_ms: int) -> None:
    assert seconds(time_text(time_ms / 1000)) == pytest.approx(time_ms / 1000)
