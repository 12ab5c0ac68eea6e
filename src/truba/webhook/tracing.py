"""A session's trace context as headers of W3C Trace Context. Pure.

A client gave it, and the pipe looked at it nowhere: only what is exactly a context becomes a header, so that nobody
writes others into a POST.
"""

from __future__ import annotations

import re

_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")


def trace_headers(trace: bytes) -> dict[str, str]:
    """Of `truba.RepeatData.trace`: traceparent, and behind a newline tracestate. Nothing for what is none."""
    parent, _, state = trace.decode("ascii", "replace").partition("\n")
    if not _PARENT.fullmatch(parent):
        return {}
    return {"traceparent": parent} | ({"tracestate": state} if _STATE.fullmatch(state) else {})
