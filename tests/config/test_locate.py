"""The line of a key, however TOML lets it be written."""

from __future__ import annotations

import tomllib

import pytest

from truba.config.locate import Lines

TEXT = '''# a comment with = and [brackets]
title = "x # no comment"
[node] # [not.this]
data = """
kinds = 1
[kinds.no]
""" # ends
'quoted key'.inner = 1

[kinds.transfer]
number = 7
backoff = { base = "1s", factor = 2, "cap" = '10m' }
tags = [ "a]", # ]
  { deep = 1 },
  [1, 2],
]
kinds."odd.name".x = 2
[kinds."tabl\\u0065"]
number = 8
[[node.frontends]]
factory = "a:b"
[[node.frontends]]
[node.frontends.options]
port = 3
[[node.frontends.more]]
z = 2024-01-01 00:00:00'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("node",), 3),
        (("node", "data"), 4),
        (("node", "quoted key", "inner"), 8),
        (("kinds",), 10),
        (("kinds", "transfer"), 10),
        (("kinds", "transfer", "backoff", "cap"), 12),
        (("kinds", "transfer", "tags", 1, "deep"), 14),
        (("kinds", "transfer", "tags", 2), 15),
        (("kinds", "transfer", "kinds", "odd.name", "x"), 17),
        (("kinds", "table", "number"), 19),
        (("node", "frontends", 0, "factory"), 21),
        (("node", "frontends", 1), 22),
        (("node", "frontends", 1, "options", "port"), 24),
        (("node", "frontends", 1, "more", 0, "z"), 26),
        (("kinds", "transfer", "missing"), 10),
        (("nowhere",), 1),
    ],
)
def test_lines(path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(TEXT)
    assert Lines(TEXT).of(path) == line
