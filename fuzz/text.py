"""What people write: the configuration, addresses, sizes and times."""

from __future__ import annotations

import random
import tempfile
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

from fuzz.target import Target
from truba.address import Address, address, parse_handler, parse_listen
from truba.client.target import parse_target
from truba.config import ConfigProblems, load
from truba.config.units import seconds, size_bytes, size_text, time_text
from truba.errors import ConfigError

_ROOT = Path(__file__).parents[1]


@cache
def _examples() -> tuple[str, ...]:
    """The examples of the documentation."""
    pages = [(_ROOT / "docs" / name).read_text() for name in ("configuration.md", "cluster.md", "extending.md")]
    blocks = [block.partition("```")[0] for page in pages for block in page.split("```toml\n")[1:]]
    return ('[kinds.transfer]\nnumber = 7\nhandler = "truba://127.0.0.1:7434"\n', *blocks)


def _file(dice: random.Random) -> bytes:
    """An example, perhaps with a line of another one."""
    lines = dice.choice(_examples()).splitlines()
    if dice.random() < 0.5:
        lines.insert(dice.randrange(len(lines) + 1), dice.choice(dice.choice(_examples()).splitlines() or [""]))
    return "\n".join(lines).encode()


def config(data: bytes) -> None:
    """A configuration, or a list of what is wrong with it, each with a line of the file: never anything else."""
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "truba.toml"
        path.write_bytes(data)
        try:
            found = load(path)
        except ConfigProblems as wrong:
            _problems(wrong, data)
            return
        assert found.kinds
        assert len({kind.number for kind in found.kinds}) == len(found.kinds)


def _problems(wrong: ConfigProblems, data: bytes) -> None:
    assert wrong.problems
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1
    for problem in wrong.problems:
        assert problem.what
        assert 0 <= problem.line <= lines
    for first, second in pairwise(wrong.problems):
        assert first.line <= second.line
    str(wrong).encode()


_WORDS = (
    "64MiB", "1GB", "0", "1.5KiB", "30s", "1m30s", "7d", "250ms", "1d2h3m4s5ms", "0.1s", "127.0.0.1:7433", "[::1]:7433",
    "localhost:0", "truba://127.0.0.1:7434", "truba://[::1]:7434", "truba://u:p@h:1", "unix:///run/truba.sock",
    "truba+unix:///x", "truba://h", "9" * 20, "9" * 5_000, "9" * 400 + ".5", "9" * 400 + "s", "٣", "²", "0x10", "1e3",
    "host:" + "9" * 5_000, "truba://[", "truba://h:99999", "truba://h:٣", "%zz", "\0", " 5 MB ",
)  # fmt: skip


def _word(dice: random.Random) -> bytes:
    return dice.choice(_WORDS).encode()


def _refused(error: ValueError) -> None:
    what, instead = error.args
    assert isinstance(what, str)
    assert isinstance(instead, str)


def units(data: bytes) -> None:
    """A number in its bounds, or a refusal that says what to write; what is printed reads as it was."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        size = size_bytes(text)
        assert size >= 0
        assert size >= 10**18 or size_bytes(size_text(size)) == size
    except ValueError as error:
        _refused(error)
    try:
        time_s = seconds(text)
        assert 0 <= time_s < float("inf")
        assert time_s > 1e12 or abs(seconds(time_text(time_s)) - time_s) <= 0.000_51
    except ValueError as error:
        _refused(error)


def addresses(data: bytes) -> None:
    """An address that prints as it reads, or a refusal."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = address(text)
        assert isinstance(found, Address)
        assert 0 <= found.port <= 65_535
        assert address(str(found)) == found
    except ValueError as error:
        _refused(error)
    with suppress(ConfigError):
        assert str(parse_listen(text))
    with suppress(ConfigError):
        match parse_handler(text):
            case Address(host, port):
                assert host
                assert 0 < port <= 65_535
            case Path() as socket:
                assert socket.is_absolute()
                assert parse_handler(f"unix:{socket}") == socket
    with suppress(ConfigError):
        target = parse_target(text)
        assert target.path or (target.host and 0 <= target.port <= 65_535)


TARGETS = (
    Target(
        "config", config, _file,
        (b'"', b"'", b'"""', b"[", b"]", b"[[", b"{", b"}", b"=", b".", b"#", b"\n", b"nan", b"inf", b"1979-05-27",
         b"[]", b"true", b"-1", b"9" * 5_000, b'"\\uD800"', b"\xff", b"kinds", b"number", b"backoff", b"handler = ",
         b"{}", b"\r"),
        memory_bytes=16 << 20,
    ),
    Target("units", units, _word, (b".", b"s", b"ms", b"MiB", b"9" * 400, b"d", b" ", b"-", b"\n", b"_")),
    Target("addresses", addresses, _word, (b"[", b"]", b":", b"@", b"/", b"9" * 5_000, b"%", b"?", b"#", b"\n", b"\t")),
)  # fmt: skip
