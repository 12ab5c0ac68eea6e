"""What operators ask of a running pipe, over the same wire as everybody else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from truba.client.remote import RemotePipe
from truba.client.target import parse_target
from truba.ports.backup import Progress as BackupProgress
from truba.tls import Tls
from truba.types import Index, Phase

PAGE = 500
"""Sessions asked for at once when listing."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as LS and SHOW tell it; times are milliseconds since 1970, due_ms 0 when it is not stored."""

    id: Index
    kind: int
    name: str
    phase: Phase
    epoch: int
    created_ms: int
    due_ms: int
    attempts: int
    deliveries: int
    cause: str
    detail: str
    records: int  # how many
    bytes: int  # of the records together
    paused: bool  # its kind is: it is not handed over before that is continued


@dataclass(frozen=True, slots=True)
class KindInfo:
    """A kind as INFO tells it."""

    number: int
    name: str
    sessions: dict[Phase, int]
    paused: bool


class Admin:
    """One connection for operators: no owner token, no second try."""

    def __init__(self, pipe: RemotePipe) -> None:
        self._pipe = pipe

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: Tls | None = None,
        insecure: bool = False,
        timeout_s: float = 10.0,
    ) -> Admin:
        """As `truba.connect`. Unavailable, NoAuth, NoPerm; ConfigError for a bad url."""
        target = parse_target(url, tls, insecure=insecure)
        pipe = RemotePipe([target], None, 0.0, timeout_s, user, password)
        await pipe.open(patience_s=0.0)
        return cls(pipe)

    @classmethod
    @asynccontextmanager
    async def over(cls, url: str, **options: Any) -> AsyncIterator[Admin]:
        """`async with`: connects with the options of `connect`, and closes."""
        admin = await cls.connect(url, **options)
        try:
            yield admin
        finally:
            await admin.close()

    async def ping(self) -> None:
        await self._pipe.request(b"PING", read=True)

    async def info(self, kind: int | str | None = None) -> dict[str, str]:
        """The `key:value` lines of INFO; those about one kind alone, if it is given. UnknownKind."""
        about = [] if kind is None else [b"KIND", str(kind).encode()]
        text = (await self._pipe.request(b"INFO", *about, read=True)).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))

    async def kinds(self, kind: int | str | None = None) -> dict[int, KindInfo]:
        """By number, in their order; the one alone, if it is given. UnknownKind."""
        info = await self.info(kind)
        found: dict[int, KindInfo] = {}
        for key, text in info.items():
            if key.startswith("kind_"):
                counts = _fields(text)
                number, name = int(key.removeprefix("kind_")), counts.pop("name")
                # Before its last field, which is free text.
                handler = _fields(info[f"handler_{number}"].partition(",state=")[0])
                sessions = {Phase(phase): int(count) for phase, count in counts.items()}
                found[number] = KindInfo(number, name, sessions, handler["paused"] == "1")
        return found

    async def ls(
        self, kind: int | str | None = None, phase: Phase | None = None, after: Index | None = None
    ) -> AsyncIterator[SessionInfo]:
        """Sessions in order of id; asks for the next page as long as you go on."""
        cursor = str(after).encode() if after else b""
        while True:
            args = [b"LS", b"LIMIT", b"%d" % PAGE]
            if kind is not None:
                args += [b"KIND", str(kind).encode()]
            if phase is not None:
                args += [b"PHASE", phase.encode()]
            if cursor:
                args += [b"AFTER", cursor]
            cursor, found = await self._pipe.request(*args, read=True)
            for fields in found:
                yield _session(fields)[0]
            if not cursor:
                return

    async def show(self, session_id: Index) -> tuple[SessionInfo, Sequence[bytes]]:
        """One session, and its records. NoSession."""
        return _session(await self._pipe.request(b"SHOW", str(session_id).encode(), read=True))

    async def why(self, session_id: Index) -> Sequence[str]:
        """In plain words: where it stands, what brought it there, what happens next and when. NoSession."""
        said = await self._pipe.request(b"WHY", str(session_id).encode(), read=True)
        return [sentence.decode() for sentence in said]

    async def resume(self, session_id: Index | str) -> None:
        """Due at once, with fresh limits. NoSession, Busy."""
        await self._pipe.resume(session_id)

    async def pause_kind(self, kind: int | str) -> None:
        """Hand over nothing more of it until it is continued. UnknownKind."""
        await self._pipe.pause_kind(kind)

    async def continue_kind(self, kind: int | str) -> None:
        """Go on with handing it over. UnknownKind."""
        await self._pipe.continue_kind(kind)

    async def backup(self, name: str) -> str:
        """Have the pipe begin a backup; its directory, on the pipe's host. Busy, BadRequest, Unavailable."""
        return os.fsdecode(await self._pipe.request(b"BACKUP", os.fsencode(name)))

    async def backup_progress(self) -> BackupProgress:
        """Of the backup under way, or the last one since the pipe started."""
        answer = await self._pipe.request(b"BACKUP", read=True)
        pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
        fields: dict[str, Any] = {
            key.decode(): value if isinstance(value, int) else os.fsdecode(value) for key, value in pairs
        }
        return BackupProgress(**fields)

    async def remove(self, session_id: Index | str) -> None:
        """Delete a stored or parked session. NoSession, Busy."""
        await self._pipe.remove(session_id)

    async def close(self) -> None:
        await self._pipe.close()


def _fields(text: str) -> dict[str, str]:
    """Of `a=1,b=2`."""
    return dict(part.split("=", 1) for part in text.split(","))


def _session(flat: list[Any]) -> tuple[SessionInfo, Sequence[bytes]]:
    fields = {flat[at].decode(): flat[at + 1] for at in range(0, len(flat), 2)}
    records: Sequence[bytes] = fields["records"] if isinstance(fields["records"], list) else ()
    info = SessionInfo(
        id=Index.parse(fields["id"]),
        kind=fields["kind"],
        name=fields["name"].decode(),
        phase=Phase(fields["phase"].decode()),
        epoch=fields["epoch"],
        created_ms=fields["created_ms"],
        due_ms=fields["due_ms"],
        attempts=fields["attempts"],
        deliveries=fields["deliveries"],
        cause=fields["cause"].decode(),
        detail=fields["detail"].decode(),
        records=len(records) if isinstance(fields["records"], list) else fields["records"],
        bytes=fields["bytes"],
        paused=bool(fields.get("paused")),  # older pipes do not tell
    )
    return info, records
