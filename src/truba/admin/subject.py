"""What the admin address is about: the node of this process, which in a cluster is there only while it leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from truba.address import Address
from truba.clock import Clock
from truba.errors import NotLeader, Unavailable
from truba.histogram import Histogram
from truba.node.node import Node
from truba.tls import Contexts

if TYPE_CHECKING:
    from truba.reload import Reloaded

Right = Literal["read", "operate"]


class Reload(Protocol):
    async def __call__(self, *, apply: bool = True) -> Reloaded:
        """See `truba.reload.Reloader`."""


@dataclass(frozen=True, slots=True)
class Token:
    """Who has it is called `name`; `digest` is its sha256."""

    name: str
    digest: bytes
    may: Right


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says, as far as it is for this room."""

    listen: Address
    tokens: tuple[Token, ...]  # none: whoever can connect may do everything
    show_records: bool
    configuration: Callable[[], Mapping[str, Any]]  # the one in force, as understood, without secrets
    reload: Reload | None = None  # none: it is for good
    tls: Contexts | None = None  # none: plain HTTP


@dataclass(frozen=True, slots=True)
class Doors:
    """The addresses of clients, and of peers, as they are now."""

    connections: int
    rejections: Mapping[str, Counter[str]] = field(default_factory=dict)  # by door ("clients", "peers"), by cause


@dataclass(frozen=True, slots=True)
class Subject:
    """Each is asked anew every time: roles change."""

    name: str
    version: str
    clock: Clock
    current: Callable[[], Node | None]
    role: Callable[[], str]  # "single", or a member's role
    leader: Callable[[], str] = lambda: ""  # the name of the node that leads, if another one does
    trouble: Callable[[], str] = lambda: ""
    doors: Callable[[], Doors] = lambda: Doors(0)
    sync_us: Callable[[], Histogram | None] = lambda: None  # of the log on this node's own disk
    log_bytes: Callable[[], int] = field(default=lambda: 0)
    store_bytes: Callable[[], int] = field(default=lambda: 0)
    last_backup_ms: Callable[[], int | None] = field(default=lambda: None)  # 0: none is known; None: none can be made

    def node(self) -> Node:
        """The node, which leads. NotLeader; Unavailable: it is starting, or has stopped."""
        node = self.current()
        if node is None:
            leader = self.leader()
            if self.role() == "single":
                raise Unavailable("the pipe is starting or stopping; nothing was changed")
            where = f"node {leader} leads: ask its admin address" if leader else "no node leads, as far as it knows"
            raise NotLeader(f"node {self.name} does not lead; {where}; nothing was changed")
        if node.sequencer.over:
            raise Unavailable("the pipe has stopped; nothing was changed")
        return node

    @property
    def ready(self) -> bool:
        """Does this node take sessions itself?"""
        node = self.current()
        return node is not None and node.accepting and not node.sequencer.over

    @property
    def serving(self) -> bool:
        """Are clients who come to this node served, be it that they are passed on to the one that leads?"""
        return self.ready or (self.role() == "follower" and self.leader() != "")
