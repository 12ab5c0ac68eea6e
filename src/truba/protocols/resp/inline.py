"""Inline requests: a line of words typed by a person, taken apart. Pure; knows nothing of framing."""

from __future__ import annotations

import re

_WORD = re.compile(rb'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def _unescape(found: re.Match[bytes]) -> bytes:
    name = found[1]
    return bytes((int(name[1:], 16),)) if len(name) == 3 else _ESCAPED.get(name, name)


def inline_words(line: bytes) -> list[bytes]:
    r"""Words split at white space; "quoted" ones may hold it, and \n \r \t \b \a \" \\ and \xHH.

    Raises ValueError on a quote that does not end, or that begins or ends inside a word.
    """
    line = line.strip()
    words: list[bytes] = []
    at = 0
    while at < len(line):
        found = _WORD.match(line, at)
        if found is None:
            raise ValueError("unbalanced quotes")
        quoted, plain = found.groups()
        words.append(plain if quoted is None else _ESCAPE.sub(_unescape, quoted))
        at = found.end()
    return words
