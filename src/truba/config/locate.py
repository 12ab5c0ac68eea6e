"""Finds the line of a key in a TOML text: `tomllib` tells what a file says, not where.

Reads only text that `tomllib` has already taken, so it need not judge: it walks over keys and values and notes the line
of each key path. A path is a tuple as pydantic gives it: names of tables and keys, and numbers of array elements.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections import Counter

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[\s,]|#[^\n]*)*")  # commas too: between elements they say nothing that we need
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}\n#]+")
STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


class Lines:
    """Line numbers (from 1) of the keys of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._lines: dict[Path, int] = {}
        self._elements: Counter[Path] = Counter()  # of arrays of tables: how many began so far
        self._document()

    def of(self, path: Path) -> int:
        """The line where `path` is written, or else the nearest part above it that is; 1 when nothing is."""
        for length in range(len(path), 0, -1):
            if line := self._lines.get(path[:length]):
                return line
        return 1

    def _document(self) -> None:
        table: Path = ()
        while self._skip():
            start = self._at
            if self._take("[["):
                table = self._inside(self._key())
                self._note(table, start)
                table = (*table, self._elements[table])
                self._elements[table[:-1]] += 1
                self._note(table, start)
                self._take("]]")
            elif self._take("["):
                table = self._inside(self._key())
                self._note(table, start)
                self._take("]")
            else:
                self._pair(table)

    def _inside(self, path: Path) -> Path:
        """A header's path, with the number of the last element after each array of tables on the way."""
        full: Path = ()
        for part in path[:-1]:
            full = (*full, part)
            if count := self._elements[full]:
                full = (*full, count - 1)
        return (*full, path[-1])

    def _pair(self, table: Path) -> None:
        start = self._at
        path = (*table, *self._key())
        self._note(path, start)
        self._take("=")
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip()
        if self._take("{"):
            while self._skip() and not self._take("}"):
                self._pair(path)
        elif self._take("["):
            element = 0
            while self._skip() and not self._take("]"):
                self._note((*path, element), self._at)
                self._value((*path, element))
                element += 1
        else:
            found = STRING.match(self._text, self._at) or _BARE_VALUE.match(self._text, self._at)
            self._at = found.end() if found else len(self._text)

    def _key(self) -> Path:
        parts: list[str] = []
        while self._skip():
            if quoted := STRING.match(self._text, self._at):
                parts.append(tomllib.loads(f"key = {quoted[0]}")["key"])
                self._at = quoted.end()
            elif bare := _BARE_KEY.match(self._text, self._at):
                parts.append(bare[0])
                self._at = bare.end()
            self._skip()
            if not self._take("."):
                break
        return tuple(parts)

    def _note(self, path: Path, at: int) -> None:
        line = bisect_right(self._starts, at)
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _skip(self) -> bool:
        """Move to the next thing that is no blank; False at the end."""
        blank = _BLANK.match(self._text, self._at)
        self._at = blank.end() if blank else self._at
        return self._at < len(self._text)

    def _take(self, mark: str) -> bool:
        if self._text.startswith(mark, self._at):
            self._at += len(mark)
            return True
        return False
