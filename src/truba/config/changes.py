"""What differs between two configurations, and what each difference asks for. Pure.

A running pipe can take another policy, another handler, other kinds, users and secrets; not another place for its
data, other addresses, or another set of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from truba.config.model import Config
from truba.config.shown import HIDDEN, shown

LIVE = ("kinds", "users")
"""Tables that a running pipe takes anew."""

LIVE_NODE = ("grace_max", "log_level")
"""Keys of `[node]` that it does."""


@dataclass(frozen=True, slots=True)
class Change:
    """`before` or `after` None: there is no such key. Secrets are hidden in both."""

    path: tuple[str, ...]
    before: Any
    after: Any
    live: bool  # a running pipe can take it

    @property
    def key(self) -> str:
        """Dotted, as in the file."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class _Hidden:
    """Compared, and told of by nothing but its name: another hash of a token is another token."""

    value: Any


def changes(before: Config, after: Config) -> list[Change]:
    """In order of the file's keys; nothing of a secret's contents."""
    found = _differences((), shown(before, _Hidden), shown(after, _Hidden))
    return [Change(path, _told(old), _told(new), _live(path)) for path, old, new in found]


def _told(value: Any) -> Any:
    match value:
        case _Hidden():
            return HIDDEN
        case dict():
            return {key: _told(inner) for key, inner in value.items()}
        case list():
            return [_told(inner) for inner in value]
        case _:
            return value


def _differences(
    path: tuple[str, ...], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences((*path, key), old, new)
        else:
            yield (*path, key), old, new


def _live(path: tuple[str, ...]) -> bool:
    return path[0] in LIVE or (path[0] == "node" and path[1:2] != () and path[1] in LIVE_NODE)
