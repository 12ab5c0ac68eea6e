"""`truba cluster`: ask the nodes of a configuration about themselves, at their peer doors, and have the leader changed.

Judging is a plain function of what the nodes said (`problems_of`); everything else here asks and prints.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from truba.cli.failure import DEGRADED, UNREACHABLE, USAGE, Failure
from truba.cli.options import FILE, config_option, json_option, say_json, say_table
from truba.errors import NoAuth, OperationError, UnknownOutcome

if TYPE_CHECKING:
    from truba.address import Address
    from truba.cluster.peers import Peer
    from truba.cluster.words import Digest, Status
    from truba.config import Cluster, Config
    from truba.tls import Contexts
    from truba.types import Position

T = TypeVar("T")

POLL_S = 0.02
"""Between two looks for the new leader: well below what a planned change takes."""

ASK_TIMEOUT_S = 3.0

_INSECURE = "TRUBA_INSECURE"
"""What `serve` was told so is told to these commands in the same way, or in the configuration."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one node answered, or why it did not."""

    status: Status | None
    digest: Digest | None = None
    error: str = ""


@click.group
def cluster() -> None:
    """Look at a cluster, and change who leads it. Run it where a node's configuration and its secrets are.

    \b
    Examples:
      truba cluster status
      truba cluster step-down --to b
    """


@cluster.command
@config_option
@click.option("--digest", "with_digest", is_flag=True, help="Compare all state, too. Each node reads all of its own.")
@json_option
def status(config_path: Path, with_digest: bool, as_json: bool) -> None:
    """Ask every node of the configuration what it is and how far it has come.

    Exit code 0: one leads, all others follow it and nothing is wrong. 8: something is. 3: no node answers.

    \b
    Examples:
      truba cluster status
      truba cluster status --config /etc/truba.toml --digest
      truba cluster status --json | jq .leader
    """
    table = _cluster_of(config_path)
    said = asyncio.run(_ask_all(table, with_digest))
    problems = problems_of(said)
    agreed = _agreed(said) if with_digest else None
    if as_json:
        nodes = [{"node": name, "address": str(table.nodes[name].peers)} | _document(one) for name, one in said.items()]
        answer = {"ok": not problems, "leader": leader_of(said), "problems": problems, "nodes": nodes}
        say_json(answer | ({"digests_agree_at": agreed} if with_digest else {}))
    else:
        say_table(
            ("node", "role", "term", "seq", "lag", "stream", "void", "trouble"),
            [_row(name, one) for name, one in said.items()],
            numeric=("term", "seq", "lag", "void"),
        )
        for place, names in (agreed or {}).items():
            click.echo(f"equal digests at {place}: {', '.join(names)}")
        if with_digest and not agreed:
            click.echo("no two nodes were at the same place: their digests cannot be compared; ask again")
        for problem in problems:
            click.echo(f"problem: {problem}")
    if not any(one.status for one in said.values()):
        click.get_current_context().exit(UNREACHABLE)
    click.get_current_context().exit(DEGRADED if problems else 0)


@cluster.command("step-down")
@config_option
@click.option("--to", "successor", metavar="NAME", default="", help="The node that is to lead next.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Seconds."
)
@json_option
def step_down(config_path: Path, successor: str, timeout_s: float, as_json: bool) -> None:
    """Have the node that leads hand over to another, before work on its machine, say; wait until another leads.

    Nothing that was acknowledged is lost; operations under way are answered UNKNOWN, or done by the new leader.

    \b
    Examples:
      truba cluster step-down
      truba cluster step-down --to b --json
    """
    table = _cluster_of(config_path)
    if successor and successor not in table.nodes:
        raise Failure(USAGE, f"[cluster.nodes] has no {successor!r}", f"name one of: {', '.join(table.nodes)}")
    old, new, term, took_s = asyncio.run(_change(table, successor, timeout_s))
    if as_json:
        say_json({"from": old, "to": new, "term": term, "took_ms": round(took_s * 1000)})
    elif old == new:
        click.echo(f"{new} leads already")
    else:
        click.echo(f"{new} leads now, in place of {old}: term {term}, after {took_s:.3f} s")


@cluster.command
@config_option
@click.option("--yes", is_flag=True, help="Do not ask: the logs of the nodes have been compared.")
@json_option
def reseed(config_path: Path, yes: bool, as_json: bool) -> None:
    """Make the stream anew from this node's own log, after JetStream has lost or changed what it held.

    Stop all nodes first. Compare their logs (`truba log verify DATA/log` tells the last event of each), and run this on
    the node whose log is the longest. What the old stream still has beyond it is added, and all its messages are kept
    in a file in the data directory. Afterwards start the nodes: this one first. Run it again if it was interrupted.

    \b
    Examples:
      truba cluster reseed --config truba.toml
      truba cluster reseed --yes --json
    """
    from truba.cli.options import progress
    from truba.clustered.reseed import reseed as run

    config = _config_of(config_path)

    def asked(tail: Position) -> None:
        if not yes:
            click.echo(f"This node's log ends with event {tail.term}-{tail.seq}.", err=True)
            click.confirm("Is no other node's log longer, and are all nodes stopped?", abort=True, err=True)

    with progress() as bar:
        task = bar.add_task("events", total=None)
        done = asyncio.run(run(config, asked, lambda seq: bar.update(task, completed=seq)))
    if as_json:
        tail = f"{done.tail.term}-{done.tail.seq}"
        kept = None if done.kept is None else str(done.kept)
        say_json({"tail": tail, "messages": done.messages, "salvaged": done.salvaged, "kept": kept})
        return
    click.echo(f"the stream holds {done.messages} messages and leads to event {done.tail.term}-{done.tail.seq}")
    if done.salvaged:
        click.echo(f"{done.salvaged} batches were only in the old stream, and are in this node's log now")
    if done.kept is not None:
        click.echo(f"what the old stream held is kept in {done.kept}")
    click.echo("start this node first, then the others")


@cluster.command("import")
@click.argument("directory", type=FILE)
@config_option
@json_option
def import_(directory: Path, config_path: Path, as_json: bool) -> None:
    """Make a cluster of a pipe that was alone: DIRECTORY is its data directory. Ids and records stay what they are.

    The pipe must be stopped. Its directory is copied to this node's `data` (or used as it is, if it is the same one),
    and a new stream begins where its log ends. Start this node first; the others take a checkpoint from it.

    \b
    Examples:
      truba cluster import /var/lib/truba --config truba.toml
    """
    from truba.clustered.reseed import import_directory

    config = _config_of(config_path)
    tail = asyncio.run(import_directory(config, directory))
    if as_json:
        say_json({"tail": f"{tail.term}-{tail.seq}", "data": str(config.node.data)})
        return
    click.echo(f"{config.node.data} leads to event {tail.term}-{tail.seq}, and the stream begins there")
    click.echo("start this node first, then the others")


# -- judging --------------------------------------------------------------------------------------------------------


def leader_of(said: Mapping[str, Said]) -> str | None:
    """The node that leads, when exactly one says so."""
    leaders = _leaders(said)
    return leaders[0] if len(leaders) == 1 else None


def problems_of(said: Mapping[str, Said]) -> list[str]:
    """What somebody should look at; empty: one leads, all others follow it and nothing is wrong."""
    problems = []
    leaders = _leaders(said)
    match leaders:
        case []:
            problems.append("no node leads")
        case [_]:
            pass
        case _:
            problems.append(f"{' and '.join(leaders)} say that they lead: one of them does not know better yet")
    chains: dict[tuple[int, int], dict[str, list[str]]] = {}
    digests: dict[tuple[int, int], dict[str, list[str]]] = {}
    for name, one in said.items():
        heard = one.status
        if heard is None:
            problems.append(f"{name}: {one.error}")
            continue
        if heard.name != name:
            problems.append(f"{name}: the node at its address is called {heard.name!r}")
        if heard.role not in ("leader", "follower"):
            problems.append(f"{name} is {heard.role}")
        elif len(leaders) == 1 and heard.leader != leaders[0]:
            problems.append(f"{name} takes {heard.leader or 'nobody'} for the leader, not {leaders[0]}")
        if heard.trouble:
            problems.append(f"{name}: {heard.trouble}")
        if one.error:
            problems.append(f"{name}: no digest: {one.error}")
        chains.setdefault((heard.term, heard.seq), {}).setdefault(heard.chain, []).append(name)
        if one.digest is not None:
            place = one.digest.term, one.digest.seq
            digests.setdefault(place, {}).setdefault(one.digest.digest, []).append(name)
    for what, places in (("logs", chains), ("digests", digests)):
        for (term, seq), held in places.items():
            if len(held) > 1:
                sides = " and ".join("/".join(names) for names in held.values())
                problems.append(f"{sides} have different {what} at {term}-{seq}: stop, and compare their data")
    return problems


def _leaders(said: Mapping[str, Said]) -> list[str]:
    return [name for name, one in said.items() if one.status is not None and one.status.role == "leader"]


def _agreed(said: Mapping[str, Said]) -> dict[str, list[str]]:
    """Place -> nodes whose digests are equal there, two at least."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, one in said.items():
        if one.digest is not None:
            found.setdefault((f"{one.digest.term}-{one.digest.seq}", one.digest.digest), []).append(name)
    return {place: names for (place, _), names in found.items() if len(names) > 1}


# -- asking ---------------------------------------------------------------------------------------------------------


def _config_of(config_path: Path) -> Config:
    """One with a [cluster]."""
    from truba.config import load

    config = load(config_path, insecure=os.environ.get(_INSECURE, "").lower() in ("1", "true", "yes", "on"))
    if config.cluster is None:
        raise Failure(USAGE, f"{config_path} has no [cluster]: a single node", "name another one with --config")
    return config


def _cluster_of(config_path: Path) -> Cluster:
    table = _config_of(config_path).cluster
    assert table is not None
    return table


def _tls(table: Cluster) -> Contexts | None:
    from truba.tls import Contexts

    return None if table.tls is None else Contexts(table.tls.files, server_side=False)


async def _ask_all(table: Cluster, with_digest: bool = False) -> dict[str, Said]:
    """All at once: places in the log are comparable only when they were asked for together."""
    from truba.cluster.peers import Peer

    secret, tls = table.peers_secret.read(), _tls(table)

    async def both(peer: Peer) -> Said:
        heard = await peer.status()
        if not with_digest:
            return Said(heard)
        try:
            return Said(heard, await peer.digest())
        except OperationError as error:
            return Said(heard, error=str(error))

    async def one(where: Address) -> Said:
        try:
            async with Peer.visit(where, secret, ASK_TIMEOUT_S, tls=tls) as peer:
                return await both(peer)
        except NoAuth:
            return Said(None, error=f"{where} refuses: secret_file here is not the one it has")
        except OperationError as error:
            return Said(None, error=str(error))

    answers = await asyncio.gather(*(one(node.peers) for node in table.nodes.values()))
    return dict(zip(table.nodes, answers, strict=True))


async def _change(table: Cluster, successor: str, timeout_s: float) -> tuple[str, str, int, float]:
    """The old leader, the new one, its term, and how long it took."""
    from truba.cluster.peers import Peer

    said = await _ask_all(table)
    old = leader_of(said)
    before = said[old].status if old else None
    if old is None or before is None:
        raise Failure(UNREACHABLE, "; ".join(problems_of(said)), "ask again: `truba cluster status`")
    if old == successor:
        return old, old, before.term, 0.0
    start_s = time.monotonic()
    secret = table.peers_secret.read()
    lost = ""
    try:
        async with Peer.visit(table.nodes[old].peers, secret, ASK_TIMEOUT_S, tls=_tls(table)) as peer:
            await peer.step_down(successor, timeout_s)
    except UnknownOutcome as error:
        lost = f"{error}; "  # who leads next tells
    while True:
        said = await _ask_all(table)
        new = leader_of(said)
        heard = said[new].status if new else None
        took_s = time.monotonic() - start_s
        if new is not None and new != old and heard is not None and heard.term > before.term:
            return old, new, heard.term, took_s
        if took_s > timeout_s:
            text = f"{lost}no other node leads after {timeout_s:g} s: {'; '.join(problems_of(said)) or f'{new} leads'}"
            raise Failure(UNREACHABLE, text, "look with `truba cluster status`")
        await asyncio.sleep(POLL_S)


# -- printing -------------------------------------------------------------------------------------------------------


def _document(one: Said) -> dict[str, Any]:
    import msgspec

    return {
        "status": None if one.status is None else msgspec.to_builtins(one.status),
        "digest": None if one.digest is None else msgspec.to_builtins(one.digest),
        "error": one.error,
    }


def _row(name: str, one: Said) -> tuple[object, ...]:
    heard = one.status
    if heard is None:
        return name, "unreachable", "-", "-", "-", "-", "-", one.error
    stream = f"{heard.stream_first}..{heard.stream_last}" if heard.stream_first else "-"
    return name, heard.role, heard.term, heard.seq, heard.lag, stream, heard.voids, heard.trouble or one.error or "-"
