"""What operators are shown: a session as fields, the node as INFO text."""

from __future__ import annotations

from truba import __version__
from truba.node.node import Node
from truba.ports.store import Head
from truba.protocols.replies import Value
from truba.types import Phase


def describe(node: Node, head: Head, records: list[bytes] | None) -> dict[str | bytes, Value]:
    """The fields of `docs/wire-protocol.md`; `records` None: their count only."""
    return {
        "id": str(head.id),
        "kind": head.kind,
        "name": node.kinds[head.kind].name,
        "phase": head.phase.value,
        "epoch": head.epoch,
        "created_ms": head.created_ms,
        "due_ms": head.due_ms,
        "attempts": head.attempts,
        "deliveries": head.deliveries,
        "cause": "" if head.phase is Phase.ACTIVE else head.cause.value,
        "detail": head.detail,
        "records": head.next - head.first if records is None else records,
        "bytes": head.bytes,
        "paused": int(head.kind in node.machine.paused),
    }


def info_text(node: Node, kind: int | None = None) -> str:
    """`key:value` lines in the manner of Redis's INFO; of one kind, or of the node and all its kinds."""
    lines = _node_lines(node) if kind is None else ["# Sessions"]
    shown = sorted(node.kinds) if kind is None else [kind]
    for number in shown:
        counts = ",".join(f"{phase}={node.machine.counts[number, phase]}" for phase in Phase)
        lines.append(f"kind_{number}:name={node.kinds[number].name},{counts}")
    lines.append("# Handlers")
    for number in shown:
        lane = node.dispatcher.lanes[number]
        counts = f"out={lane.out},concurrency={lane.kind.concurrency},breaker={lane.breaker.stage}"
        lines.append(f"handler_{number}:{counts},paused={int(lane.paused)},state={lane.route.state()}")
    return "\r\n".join(lines) + "\r\n"


def _node_lines(node: Node) -> list[str]:
    machine, sequencer, backups = node.machine, node.sequencer, node.operators.backups
    return [
        "# Server",
        f"truba_version:{__version__}",
        f"name:{node.name}",
        f"accepting:{int(node.accepting)}",
        "loading:0",  # Redis clients wait for this
        "# Log",
        f"term:{machine.term}",
        f"seq:{machine.seq}",
        f"log_bytes:{node.log.size_bytes}",
        f"log_space:{node.log.space}",
        f"batches:{sequencer.batches}",
        f"events:{sequencer.events}",
        "# Store",
        f"store_bytes:{node.base.size_bytes}",
        f"store_seq:{node.base.summary.applied.seq}",
        f"checkpoints:{node.checkpointer.done}",
        f"backup:{'none' if backups is None else backups.progress.state}",
        "# Sessions",
        f"deliveries:{node.dispatcher.deliveries}",
        f"owner_losses:{node.presence.losses}",
    ]
