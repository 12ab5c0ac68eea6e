"""Records, and what is made of them, safe to show on a terminal."""

from __future__ import annotations

BYTES_MAX = 160


def preview(record: bytes) -> str:
    """The record's text when it is printable text, else hex; cut at BYTES_MAX. Never a control code."""
    head = record[:BYTES_MAX]
    left = len(record) - len(head)
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # a character cut in two by the bound is no reason to show hex
        text = head[: error.start].decode() if left and error.start > len(head) - 4 else "\0"
    shown = text if text.isprintable() else head.hex(" ")
    return f"{shown} ... {left} more" if left else shown


def printable(text: str) -> str:
    """On one line, each control code as Python escapes it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
