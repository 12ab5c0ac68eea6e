"""A checkpoint of another node becomes this node's store and log, whole or not at all, whenever the process dies.

Two directories cannot take two others' places in one act, so there is one act that decides, and the rest follows from
it at this start or at the next one. Under the data directory:

    incoming/store/  incoming/log/     what arrives, made complete and durable first
    incoming/READY                     its name is that act: before it, `incoming` is nothing; after it, it is the node
    replaced-<n>/                      the store and log that were there before; removed at the end, or kept if so told

`settle` brings this to an end, and so must come before log and store are opened: `truba.compose` sees to that. Every
step may be repeated, and what is left to do is read from the names that are there (`steps`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Annotated, Literal, NamedTuple, assert_never
from zlib import crc32

import msgspec

from truba.backup.marks import refuse_unfit
from truba.errors import DataDamaged
from truba.log.directory import Directory
from truba.log.disk import OsDisk
from truba.log.plant import plant
from truba.store.mark import sync_directory
from truba.store.rocks import inspect_store
from truba.store.rocks_setup import claim
from truba.types import Position

INCOMING = "incoming"
PARTS = ("log", "store")

Settled = Literal["nothing", "dropped", "installed"]


class Plan(msgspec.Struct, frozen=True):
    """What READY holds: where the node's former log and store go, and whether they stay there.

    READY: this as JSON in one line, and in a second one the CRC-32 of the first, in hex.
    """

    aside: Annotated[str, msgspec.Meta(pattern=r"\Areplaced-[0-9]+\Z")]  # what it names is moved, and removed
    keep: bool

    def encode(self) -> bytes:
        line = msgspec.json.encode(self) + b"\n"
        return line + b"%08x\n" % crc32(line)

    @classmethod
    def decode(cls, text: bytes) -> Plan:
        """ValueError when that is not what was written."""
        line, newline, crc = text.partition(b"\n")
        if crc != b"%08x\n" % crc32(line + newline):
            raise ValueError("the checksum does not hold")
        return msgspec.json.decode(line, type=cls)


class Move(NamedTuple):
    """A rename; names are relative to the data directory."""

    source: str
    target: str


class Remove(NamedTuple):
    """A directory, with all that it holds."""

    name: str


def steps(present: Set[str], plan: Plan) -> list[Move | Remove]:
    """What is left to do of an installation that was decided, by the names that are there. Pure.

    Nothing of the former node is removed before both new directories have their places.
    """
    left: list[Move | Remove] = []
    for part in PARTS:
        if f"{INCOMING}/{part}" in present:
            if part in present:
                left.append(Move(part, f"{plan.aside}/{part}"))
            left.append(Move(f"{INCOMING}/{part}", part))
    aside = plan.aside in present or any(isinstance(step, Move) and step.source in PARTS for step in left)
    if aside and not plan.keep:
        left.append(Remove(plan.aside))
    return [*left, Remove(INCOMING)]


def settle(data: Path) -> Settled:
    """Before anything under `data` is opened: bring to an end what an earlier process may have left half done.

    "dropped": a checkpoint that had not arrived in full is gone, log and store are as they were. "installed": they are
    the checkpoint's. "nothing": there was nothing to do. DataLocked: a checkpoint is arriving, or log or store is in
    use. DataForeign: this is no data directory, or none yet. DataDamaged, OSError.
    """
    refuse_unfit(data)
    if not os.path.lexists(data / INCOMING):
        return "nothing"
    claimed = claim(data / INCOMING)
    try:
        return _settle(data)
    finally:
        os.close(claimed)


class Arrival:
    """A checkpoint that arrives under `data`, whose log and store may be in use until `install`. Everything blocks.

    `store` is where the copy of the other node's store goes: not there yet, to be made whole and durable by whoever
    brings it. The place is held until `close`, which must be called; what was not installed by then is dropped by the
    next `settle` or `Arrival`.
    """

    def __init__(self, data: Path) -> None:
        """DataLocked: another one arrives here. DataDamaged, OSError."""
        self._data = data
        self._place = data / INCOMING
        self.store = self._place / "store"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        settle(data)
        self._claimed = claim(self._place)

    def install(
        self, log_id: bytes, said: Position, *, segment_bytes: int = 32 << 20, keep: bool = False
    ) -> Path | None:
        """Put what has arrived in the place of log and store, which must be closed. `segment_bytes`: of the log.

        The log, with this id, begins at the position that the checkpoint is said to lead to. `keep`: leave the former
        log and store in the directory that is returned (None: there were none, or they are gone). Call `close`
        afterwards too. DataDamaged: the checkpoint is not what was said; nothing was changed. DataLocked: log or store
        is in use; nothing was changed. After an OSError the next `settle` goes on, or drops it.
        """
        place = self._place
        if not self.store.is_dir():
            raise ValueError("the checkpoint has not arrived")
        found = inspect_store(self.store).applied
        if found != said:
            raise DataDamaged(
                f"the checkpoint was said to lead to {said.term}-{said.seq} ({said.chain.hex()}), but its store holds"
                f" {found.term}-{found.seq} ({found.chain.hex()}): take another one"
            )
        with _not_in_use(self._data):
            plant(place / "log", log_id, said, segment_bytes=segment_bytes)
            plan = Plan(_free_name(self._data), keep)
            _sync(place / "store", place, self._data, self._data.parent)
            _write_ready(place, plan)
            _carry_out(self._data, plan)
        kept = self._data / plan.aside
        return kept if kept.exists() else None

    def close(self) -> None:
        """Calling it again does nothing."""
        claimed, self._claimed = self._claimed, -1
        if claimed >= 0:
            os.close(claimed)


def _settle(data: Path) -> Settled:
    """For whoever holds the claim on `incoming`."""
    try:
        text = (data / INCOMING / "READY").read_bytes()
    except FileNotFoundError:
        # Nothing in it: the very first or the very last step of an earlier process was its last.
        told: Settled = "dropped" if any((data / INCOMING).iterdir()) else "nothing"
        _act(data, Remove(INCOMING))
        return told
    try:
        plan = Plan.decode(text)
    except (ValueError, msgspec.MsgspecError) as error:
        raise DataDamaged(f"{data / INCOMING / 'READY'} is not what was written: {text[:100]!r}") from error
    # A rename that was seen may not be durable yet: its process died before it had synced the directories.
    _sync(data / INCOMING, data)
    with _not_in_use(data):
        _carry_out(data, plan)
    return "installed"


def _carry_out(data: Path, plan: Plan) -> None:
    names = (*PARTS, *(f"{INCOMING}/{part}" for part in PARTS), plan.aside)
    for step in steps({name for name in names if os.path.lexists(data / name)}, plan):
        _act(data, step)


def _act(data: Path, step: Move | Remove) -> None:
    """One step, durable when it returns."""
    match step:
        case Move(source, target):
            above = (data / target).parent
            if not above.exists():
                above.mkdir(mode=0o700)
                _sync(data)
            os.rename(data / source, data / target)  # noqa: PTH104 - one name for one system call
            _sync(above, (data / source).parent)
        case Remove(name):
            rmtree(data / name)
            _sync(data)
        case _:
            assert_never(step)


@contextmanager
def _not_in_use(data: Path) -> Iterator[None]:
    """Hold the locks of the log and the store that are there, as whoever opens them does. DataLocked."""
    with ExitStack() as held:
        if (data / "log").exists():
            held.callback(Directory.create(data / "log", OsDisk()).close)
        if (data / "store").exists():
            held.callback(os.close, claim(data / "store"))
        yield


def _free_name(data: Path) -> str:
    taken = {entry.name for entry in data.iterdir()}
    return next(name for name in (f"replaced-{n}" for n in range(1, len(taken) + 2)) if name not in taken)


def _write_ready(place: Path, plan: Plan) -> None:
    young = place / "READY.tmp"
    with young.open("wb") as file:
        file.write(plan.encode())
        file.flush()
        os.fsync(file.fileno())
    os.rename(young, place / "READY")  # noqa: PTH104
    _sync(place)


def _sync(*directories: Path) -> None:
    for directory in directories:
        sync_directory(directory)
