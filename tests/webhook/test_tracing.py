"""A trace context becomes headers, and nothing else does."""

from __future__ import annotations

import pytest

from truba.webhook.tracing import trace_headers

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_context_becomes_headers() -> None:
    assert trace_headers(PARENT.encode()) == {"traceparent": PARENT}
    assert trace_headers(f"{PARENT}\na=1,b=2".encode()) == {"traceparent": PARENT, "tracestate": "a=1,b=2"}


@pytest.mark.parametrize(
    "trace", [b"", b"nonsense", PARENT.upper().encode(), f"{PARENT}\r\nX: y".encode(), f" {PARENT}".encode(), b"\xff"]
)
def test_anything_else_does_not(trace: bytes) -> None:
    assert trace_headers(trace) == {}


@pytest.mark.parametrize("state", [b"", b"a=1\r\nX: y", b"a=1\nX: y", b"\x00", b"\xff", b"a" * 600])
def test_nor_does_a_state_that_is_none(state: bytes) -> None:
    assert trace_headers(PARENT.encode() + b"\n" + state) == {"traceparent": PARENT}
