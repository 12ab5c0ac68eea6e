"""What happened in a run, step by step in simulated time; put into words only when somebody reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

Step = tuple[float, str, str, tuple[object, ...]]


class Story:
    """Steps of a run. `digest` is equal for two runs exactly when everything in them went the same way."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.steps: list[Step] = []
        self.told = False  # nothing that follows belongs to it

    def tell(self, who: str, what: str, *details: object) -> None:
        if not self.told:
            self.steps.append((self._now_s(), who, what, details))

    def digest(self) -> str:
        return hashlib.sha256(repr(self.steps).encode()).hexdigest()[:16]

    def lines(self, last: int | None = None) -> Iterator[str]:
        """One for each step; only the `last` ones if a number is given."""
        for at_s, who, what, details in self.steps if last is None else self.steps[-last:]:
            yield f"{at_s:10.4f} s  {who:<12} {what} {' '.join(map(_shown, details))}".rstrip()


def _shown(detail: object) -> str:
    match detail:
        case bytes():
            return _record(detail)
        case list() | tuple():
            return "[" + " ".join(map(_shown, detail)) + "]"
        case float():
            return f"{detail:g}"
    return str(detail)


def _record(record: bytes) -> str:
    """Records begin with a name of their own; the rest fills them up."""
    name, _, rest = record.partition(b".")
    return name.decode("ascii", "replace") + (f"+{len(rest)}" if rest else "")
