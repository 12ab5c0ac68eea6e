"""The admin application on a node in memory, asked without a socket in between."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from tests.node.world import World, nobody
from truba.address import Address
from truba.admin.app import make_app
from truba.admin.jobs import Jobs
from truba.admin.pulse import Pulse
from truba.admin.subject import Doors, Right, Settings, Subject, Token
from truba.audit import AuditFile
from truba.histogram import Histogram
from truba.kinds import Backoff, Breaker, Kind
from truba.node.node import Node
from truba.rejections import Rejections
from truba.types import Index

KINDS = (
    Kind(
        7,
        "transfer",
        nobody,
        recovery_delay_s=0,
        jitter_s=0,
        backoff=Backoff(1, 1, 1),
        max_attempts=1,
        breaker=Breaker(failures=0),
    ),
    Kind(8, "mail", nobody, recovery_delay_s=0, jitter_s=0, concurrency=2),
)
TOKENS = {"reader": "read", "ann": "operate"}


@dataclass
class Place:
    """A node, and a client of its admin address."""

    world: World
    client: httpx.AsyncClient
    audit_path: Path
    pulse: Pulse
    told: list[tuple[str, dict[str, object]]]  # of whom it turned away
    node_there: bool = True

    @property
    def node(self) -> Node:
        return self.world.node

    def stored(self, kind: int = 7, delay_ms: int = 3_600_000, record: bytes = b"hidden contents") -> Index:
        hold = self.node.new(self.node.presence.attach(), kind, [record])
        self.node.store(hold, delay_ms)
        return hold.id

    async def parked(self, count: int = 1) -> list[Index]:
        """Of kind 7, whose sessions have one attempt."""
        ids = [self.stored(7, 0) for _ in range(count)]
        given = self.world.route(7).given
        while len(given) < count or any(not handover.hold.ended for handover in given):
            await self.world.durable()
            await asyncio.sleep(0)
            for handover in given:
                if not handover.hold.ended:
                    self.node.fail(handover.hold, "no such account")
            self.node.dispatcher.wake()
        await self.world.durable()
        given.clear()
        return ids

    async def get(self, path: str, status: int = 200, **params: Any) -> Any:
        answer = await self.client.get(path, params=params)
        assert answer.status_code == status, answer.text
        return answer.json()

    def audit(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.audit_path.read_text().splitlines()]

    def results(self) -> list[str]:
        return [line["result"].partition(":")[0] for line in self.audit()]


@asynccontextmanager
async def place(
    directory: Path,
    *,
    tokens: dict[str, Right] | None = None,
    show_records: bool = False,
    audit: str = "audit.jsonl",
    role: str = "single",
    host: str = "127.0.0.1",
) -> AsyncIterator[Place]:
    """`tokens`: name -> right; the token of NAME is "NAME's token"."""
    world = World(*KINDS)
    await world.start()
    made: Place

    subject = Subject(
        name="truba",
        version="1.2.3",
        clock=world.clock,
        current=lambda: world.node if made.node_there else None,
        role=lambda: role,
        leader=lambda: "" if role == "single" else "b",
        doors=lambda: Doors(3, {"clients": Counter({"connection refused": 4})}),
        sync_us=Histogram,
        log_bytes=lambda: world.log.size_bytes,
        last_backup_ms=lambda: 1_700_000_000_500,
    )
    settings = Settings(
        Address(host, 7480),
        tuple(Token(name, sha256(f"{name}'s token".encode()).digest(), may) for name, may in (tokens or {}).items()),
        show_records,
        lambda: {"node": {"data": "data"}},
    )
    pulse = Pulse(subject)
    audit_log = AuditFile(directory / audit, world.clock)
    jobs = Jobs(subject, audit_log)
    told: list[tuple[str, dict[str, object]]] = []
    rejections = Rejections(lambda cause, **fields: told.append((cause, fields)))
    app = make_app(subject, settings, pulse, audit_log, jobs, rejections)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7480") as client:
        made = Place(world, client, directory / audit, pulse, told)
        try:
            yield made
        finally:
            await jobs.stop()
            await audit_log.close()
            world.node.give_up(RuntimeError("the test is over"))
            await world.node.checkpointer.close()
