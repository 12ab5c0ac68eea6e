"""What of a record a terminal is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truba.cli.preview import BYTES_MAX, preview


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (b"", ""),
        (b'{"amount": 5}', '{"amount": 5}'),
        ("труба".encode(), "труба"),
        (b"\x00\xff", "00 ff"),
        (b"\x1b[2J", "1b 5b 32 4a"),
        (b"a\nb", "61 0a 62"),
        (b"x" * (BYTES_MAX + 5), "x" * BYTES_MAX + " ... 5 more"),
        (b"x" * (BYTES_MAX - 1) + "ж".encode(), "x" * (BYTES_MAX - 1) + " ... 1 more"),
    ],
)
def test_preview(record: bytes, shown: str) -> None:
    assert preview(record) == shown


@given(st.binary(max_size=1000))
def test_it_is_bounded_and_printable(record: bytes) -> None:
    assert len(preview(record)) <= 3 * BYTES_MAX + 20
    assert preview(record).isprintable()
