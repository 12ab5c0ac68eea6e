"""The rooms of the house and the doors between them, read from the code's own imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SRC / "truba").rglob("*.py"))
}

PURE = (
    "truba.types", "truba.errors", "truba.remedy", "truba.kinds", "truba.machine", "truba.codec", "truba.protocols",
    "truba.ports",
    "truba.log.frame", "truba.log.recovery", "truba.log.pace", "truba.store.keys", "truba.client.resume",
    "truba.client.requests", "truba.cluster.entry", "truba.cluster.rule", "truba.cluster.words",
    "truba.node.breaker", "truba.node.rate", "truba.backup.manifest",
    "truba.torture.checker", "truba.torture.history", "truba.torture.sessions", "truba.torture.story",
    "truba.webhook.bodies", "truba.webhook.settings", "truba.webhook.signature", "truba.webhook.verdict",
)  # fmt: skip
"""They work on values: nothing that they import can touch a disk, a network, a clock or a die."""

IO_MODULES = {
    "os", "io", "socket", "select", "selectors", "asyncio", "threading", "subprocess", "time", "random", "secrets",
    "pathlib", "shutil", "tempfile", "signal", "fcntl", "mmap", "uvloop", "hiredis", "rocksdict", "structlog",
    "logging",
}  # fmt: skip

ADAPTERS = (
    "truba.log",
    "truba.store",
    "truba.streams",
    "truba.frontends",
    "truba.transports",
    "truba.hooks",
    "truba.records",
)
ROOTS = (
    "truba.compose", "truba.configured", "truba.reload", "truba.install", "truba.service", "truba.clustered",
    "truba.embedded", "truba.cli",
    "truba.testing", "truba.bench", "truba.demo", "truba.torture", "truba.backup",
)  # fmt: skip
"""Where adapters are named: the composition roots, and the tools that look into one of them."""

OUTERMOST = (
    "truba.cli",
    "truba.demo",
    "truba.bench",
    "truba.torture",
    "truba.service",
    "truba.clustered",
    "truba.administered",
    "truba.configured",
    "truba.reload",
)

CLOCKS_AND_DICE = re.compile(r"\btime\.(time|time_ns|monotonic|monotonic_ns|perf_counter)\b|\brandom\.\w|\bsecrets\.\w")
READS_CLOCKS = {
    "truba.clock",  # the node's, all of them
    "truba.client.calls",  # another process's: its own timeouts
    "truba.client.remote",  # the same; tags and tokens
    "truba.admin.pulse",  # how late the loop is
    "truba.log.disk",  # how long a sync takes
    "truba.clustered.serve",  # how long the start took, and the id of a new cluster
    "truba.service",  # how long the start took
    "truba.transports.notes",  # when a note was sent
    "truba.webhook.receive",  # a receiver's: how old a POST is
}


def imports(path: Path, *, at_run_time_only: bool = True) -> Iterator[str]:
    """Modules that a file imports; those under `if TYPE_CHECKING` only when asked for."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if at_run_time_only and id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("module", [name for name in MODULES if inside(name, PURE)])
def test_the_core_is_pure(module: str) -> None:
    used = set(imports(MODULES[module]))
    assert not {name for name in used if name.split(".")[0] in IO_MODULES}
    assert not {name for name in used if name in MODULES and not inside(name, (*PURE, "truba", "truba.session"))}


def test_the_checker_of_torture_shares_nothing_with_what_it_checks() -> None:
    assert not {name for name in imports(MODULES["truba.torture.checker"]) if inside(name, ("truba",))}
    others = ("truba.torture.checker", "truba.torture.history", "truba.torture.sessions")
    for module in ("truba.torture.history", "truba.torture.sessions", "truba.torture.story"):
        assert not {name for name in imports(MODULES[module]) if inside(name, ("truba",)) and not inside(name, others)}


@pytest.mark.parametrize("module", [name for name in MODULES if inside(name, ADAPTERS)])
def test_adapters_do_not_know_each_other(module: str) -> None:
    mine = next(room for room in ADAPTERS if inside(module, (room,)))
    others = tuple(room for room in ADAPTERS if room != mine)
    assert not {name for name in imports(MODULES[module]) if inside(name, others)}


def test_only_composition_roots_name_adapters() -> None:
    knowing = {
        module
        for module, path in MODULES.items()
        if not inside(module, (*ADAPTERS, *ROOTS)) and any(inside(name, ADAPTERS) for name in imports(path))
    }
    assert not knowing


def test_nothing_imports_the_command_line() -> None:
    knowing = {
        module
        for module, path in MODULES.items()
        if not inside(module, (*OUTERMOST, "truba.__main__")) and any(inside(n, OUTERMOST) for n in imports(path))
    }
    assert not knowing


def test_clocks_and_dice_are_read_in_few_places() -> None:
    reading = {
        module
        for module, path in MODULES.items()
        if not inside(module, ("truba.cli", "truba.demo", "truba.bench", "truba.testing", "truba.torture"))
        and CLOCKS_AND_DICE.search("\n".join(line.split("#")[0] for line in path.read_text().splitlines()))
    }
    assert reading == READS_CLOCKS
