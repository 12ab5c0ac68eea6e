"""Pipes to be backed up: small ones on disk, made by the real node, and what can be seen of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from truba.backup.manifest import Manifest
from truba.backup.stopped import back_up
from truba.compose import Parts, build
from truba.kinds import Kind
from truba.log.file import FileLog
from truba.machine.digest import state_digest
from truba.node.recovery import recover
from truba.session import RepeatData
from truba.store.rocks import RocksStore

TOKEN = b"an owner of sixteen bytes or more"


async def never(repeat: RepeatData) -> None:
    raise AssertionError("nothing is due here")


def kinds() -> list[Kind]:
    return [Kind(number, f"kind{number}", handler=never, recovery_delay_s=3600.0) for number in (7, 8)]


@dataclass(frozen=True)
class Sample:
    """A stopped pipe. `digest`: of its state as it was when it stopped."""

    data: Path
    digest: str
    active: tuple[str, ...]  # ids that the owner TOKEN held


async def sample(data: Path, sessions: int = 6, checkpoint: bool = True) -> Sample:
    """Old sessions that are in the store, young ones that are in the log alone; active, stored, parked and gone."""
    parts = opened(data)
    node = parts.node
    await node.start()
    owner = node.presence.attach()
    node.presence.name_owner(owner, TOKEN, 60_000)
    for at in range(sessions):
        hold = node.new(owner, 7 + at % 2, [b"first %d" % at])
        node.append(hold, [b"second %d" % at, bytes(50)])
        if at % 3 == 1:
            node.store(hold, 3_600_000)
    if checkpoint:
        await node.checkpoint()
    for hold in list(owner.holds.values())[::2]:
        node.replace(hold, b"young %d" % hold.number)
    node.operators.pause(8, True)
    node.delete(node.new(owner, 8, [b"gone"]))
    node.new(owner, 8, [b"youngest"])
    await node.sequencer.flush()
    active = tuple(str(hold.id) for hold in owner.holds.values())
    digest = state_digest(node.machine)
    await abandon(parts)
    return Sample(data, digest, active)


def opened(data: Path) -> Parts:
    """A pipe with small files, not started."""
    return build(data, kinds(), segment_bytes=1 << 18, reserve_bytes=0)


async def abandon(parts: Parts) -> None:
    """As kill -9 leaves it: no checkpoint at the end."""
    await parts.node.retire()
    await parts.node.checkpointer.close()
    parts.release()


def backed_up(source: Sample, target: Path) -> Manifest:
    return back_up(source.data, target, lambda stage, done, of: None)


def digest_of(data: Path) -> str:
    """Of the state that a pipe would start with."""
    log = FileLog.open(data / "log", commit="inline", housekeeping="inline", reserve_bytes=0)
    try:
        store = RocksStore.open(data / "store")
        try:
            return state_digest(recover(log, store, {kind.number: kind for kind in kinds()}))
        finally:
            store.close()
    finally:
        log.close()


def children(pid: int) -> list[int]:
    """Processes of that one that make a backup, and would not outlive it."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, line in lines.items() if b"truba.backup.child" in line and b"tether" not in line]
