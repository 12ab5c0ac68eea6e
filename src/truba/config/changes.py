"""What differs between two configurations, and what each difference asks for. Pure.

A running pipe can take another policy, another handler, other kinds, users and secrets; not another place for its
data, other addresses, or another set of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from truba.config.model import Config
from truba.config.shown import shown

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


def changes(before: Config, after: Config) -> list[Change]:
    """In order of the file's keys; nothing of a secret's contents."""
    return [Change(path, old, new, _live(path)) for path, old, new in _differences((), shown(before), shown(after))]


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
