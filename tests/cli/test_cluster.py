"""`truba cluster` against played nodes behind real peer doors: what it says, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from tests.cluster.played import FOLLOWER, SECRET, Played, opened
from truba.address import Address
from truba.cli.cluster import Said, problems_of
from truba.cli.main import main
from truba.cluster.words import Digest, Status


class Nodes:
    """Three played nodes on a loop of their own thread; `b` leads. The commands run in the test's thread."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts = {name: Played(name=name, role="leader" if name == "b" else "follower") for name in "abc"}
        self.addresses: dict[str, Address] = {}
        self._up, self._loop = threading.Event(), asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._up.wait(10)
        (directory / "secret").write_bytes(SECRET)
        self.write()

    def write(self, **addresses: Address) -> None:
        nodes = "".join(
            f'{name} = {{ clients = "10.0.0.1:{at}", peers = "{address}" }}\n'
            for at, (name, address) in enumerate((self.addresses | addresses).items(), 1)
        )
        (self.directory / "truba.toml").write_text(
            '[node]\nname = "a"\ninsecure = true\n[kinds.x]\nnumber = 1\nhandler = "local:a:b"\n'
            f'[cluster]\nservers = ["nats://h"]\nsecret_file = "secret"\n[cluster.nodes]\n{nodes}'
        )

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            for name, host in self.hosts.items():
                door = await stack.enter_async_context(opened(host, self.directory / name))
                self.addresses[name] = door.bound
            self._up.set()
            await self._stop.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def lead(self, new: str, term: int) -> None:
        for name, host in self.hosts.items():
            role = "leader" if name == new else "follower"
            host.said = msgspec.structs.replace(host.said, role=role, leader=new, term=term)

    def run(self, *args: str) -> Result:
        return CliRunner().invoke(main, ["cluster", *args, "--config", str(self.directory / "truba.toml")])


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path)
    yield made
    made.close()


def test_all_is_well(nodes: Nodes) -> None:
    result = nodes.run("status")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["node", "role", "term", "seq", "lag", "stream", "void", "trouble"]
    assert rows[3] == ["b", "leader", "3", "117", "0", "1..40", "1", "-"]
    document: dict[str, Any] = json.loads(nodes.run("status", "--json").stdout)
    assert (document["ok"], document["leader"], document["problems"]) == (True, "b", [])
    assert [node["node"] for node in document["nodes"]] == ["a", "b", "c"]
    assert document["nodes"][0]["status"]["servers"] == ["nats://127.0.0.1:4222"]


def test_digests(nodes: Nodes) -> None:
    assert "equal digests at 3-117: a, b, c" in nodes.run("status", "--digest").stdout
    nodes.hosts["a"].said = msgspec.structs.replace(nodes.hosts["a"].said, seq=116, chain="00")
    document = json.loads(nodes.run("status", "--digest", "--json").stdout)
    assert (document["ok"], document["digests_agree_at"]) == (True, {"3-117": ["b", "c"]})
    nodes.hosts["c"].digest_text = "other"
    result = nodes.run("status", "--digest")
    assert result.exit_code == 8
    assert "problem: b and c have different digests at 3-117" in result.stdout
    assert "no two nodes were at the same place" in result.stdout


def test_a_node_that_is_away_and_one_with_another_secret(nodes: Nodes) -> None:
    nodes.write(c=Address("127.0.0.1", 1))
    result = nodes.run("status")
    assert result.exit_code == 8
    assert "unreachable" in result.stdout
    assert "problem: c: no connection to 127.0.0.1:1: Connection refused" in result.stdout
    (nodes.directory / "secret").write_text("wrong")
    result = nodes.run("status")
    assert result.exit_code == 3
    assert "refuses: secret_file here is not the one it has" in result.stdout


def test_step_down(nodes: Nodes) -> None:
    nodes.hosts["b"].on_step_down = lambda successor: nodes.lead(successor or "a", 4)
    result = nodes.run("step-down", "--to", "c")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("c leads now, in place of b: term 4, after 0.")
    assert nodes.hosts["b"].stepped == ["c"]
    assert nodes.run("step-down", "--to", "c").stdout == "c leads already\n"
    nodes.hosts["c"].on_step_down = lambda _: nodes.lead("a", 5)
    document = json.loads(nodes.run("step-down", "--json").stdout)
    assert (document["from"], document["to"], document["term"]) == ("c", "a", 5)


def test_a_step_down_that_leads_nowhere(nodes: Nodes) -> None:
    result = nodes.run("step-down", "--timeout", "0.2")  # answered, and yet nobody else leads
    assert result.exit_code == 3
    assert "no other node leads after 0.2 s" in result.stderr
    nodes.lead("", 4)
    result = nodes.run("step-down")
    assert result.exit_code == 3
    assert "no node leads" in result.stderr


def test_what_makes_no_sense(nodes: Nodes, tmp_path: Path) -> None:
    assert nodes.run("step-down", "--to", "x").exit_code == 2
    (tmp_path / "truba.toml").write_text('[kinds.x]\nnumber = 1\nhandler = "local:a:b"\n')
    result = nodes.run("status")
    assert result.exit_code == 2
    assert "has no [cluster]" in result.stderr


def node(name: str, role: str = "follower", **said: object) -> Status:
    return msgspec.structs.replace(FOLLOWER, name=name, role=role, **said)


def digest(text: str) -> Digest:
    return Digest(term=3, seq=117, chain="0c", digest=text)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"a": Said(node("a", lag=9, term=2, seq=9))}, []),
        ({"b": Said(node("b"))}, ["no node leads"]),
        ({"a": Said(node("a", "leader"))}, ["a and b say that they lead: one of them does not know better yet"]),
        ({"a": Said(node("a", leader=""))}, ["a takes nobody for the leader, not b"]),
        ({"a": Said(node("a", leader="c"))}, ["a takes c for the leader, not b"]),
        ({"a": Said(node("a", "starting"))}, ["a is starting"]),
        ({"a": Said(node("z"))}, ["a: the node at its address is called 'z'"]),
        ({"c": Said(node("c", trouble="LOG_REGRESSION"))}, ["c: LOG_REGRESSION"]),
        ({"c": Said(node("c", chain="ff"))}, ["a/b and c have different logs at 3-117: stop, and compare their data"]),
        ({"c": Said(node("c"), error="busy")}, ["c: no digest: busy"]),
        (
            {"a": Said(node("a"), digest("1")), "b": Said(node("b", "leader"), digest("2"))},
            ["a and b have different digests at 3-117: stop, and compare their data"],
        ),
    ],
)
def test_judging(changed: dict[str, Said], expected: list[str]) -> None:
    well = {"a": Said(node("a")), "b": Said(node("b", "leader")), "c": Said(node("c"))}
    assert problems_of(well | changed) == expected
