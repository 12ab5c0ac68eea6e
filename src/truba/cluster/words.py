"""What nodes of a cluster tell each other at the peer door, as values. Nothing here does I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

from truba.types import Position

if TYPE_CHECKING:
    from pathlib import Path

Role = Literal["leader", "follower", "candidate", "starting", "stopped"]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a node sees itself and the cluster. New fields get a default: nodes of two versions read each other."""

    name: str
    version: str
    role: Role
    leader: str  # name of the node that leads, as far as this one knows; empty: it knows none
    term: int
    seq: int  # of the last event in its own log
    chain: str  # hash through that event's batch, in hex
    stream_first: int  # number of the stream's first message; 0 while nothing is known of the stream
    stream_last: int
    stream_seq: int  # of the last message that this node has taken into its own log, or judged void
    lag: int  # messages that it has not read yet
    voids: int  # messages that no reader takes for entries of the log
    since_ms: int  # how long it has been in this role: a duration, clocks need not agree
    trouble: str  # what somebody should look at; empty: nothing
    applied_seq: int  # of the last event that its store holds
    sessions: int
    servers: tuple[str, ...]  # NATS servers that it is connected to


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """All of a node's state in one number, at one place of the log. Equal places have equal digests."""

    term: int
    seq: int
    chain: str  # hex
    digest: str  # hex


class Exported(NamedTuple):
    """What a checkpoint is a checkpoint of. Its files are in a directory."""

    cluster: bytes  # id of the cluster, 16 bytes
    position: Position  # the state is that of the log through here
    extra: bytes  # whatever else the node that takes it over needs; opaque here, at most EXTRA_BYTES_MAX


class Host(Protocol):
    """The node behind a peer door. Calls come on the loop's thread."""

    def status(self) -> Status: ...

    async def digest(self) -> Digest:
        """OperationError when it cannot be told now."""

    async def step_down(self, successor: str) -> None:
        """Lead no more; let `successor` (a name, or empty: any other node) lead. OperationError when it cannot."""

    async def export(self, directory: Path) -> Exported:
        """Write a checkpoint's files, and nothing else, into an empty directory, to be removed when they are sent.

        OperationError when it cannot now.
        """


PIECE_BYTES = 1 << 20
"""The largest piece in which a file is sent: what each side holds of it in memory, once or twice."""

EXTRA_BYTES_MAX = 16 << 20
FILES_MAX = 65_536
"""A store keeps its tables in files of tens of mebibytes, so that is terabytes."""

NAME_BYTES_MAX = 512


class FileNote(NamedTuple):
    """One file of a transfer, told before its bytes."""

    name: str  # relative, parts joined by "/"
    size_bytes: int
    sha256: bytes


def is_plain(name: str) -> bool:
    """May a file of a transfer be called that? Never a way out of the directory that it is written into."""
    parts = name.split("/")
    return (
        len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX
        and name.isprintable()
        and all(part not in ("", ".", "..") and "\\" not in part for part in parts)
    )
