"""What operators ask of a running pipe, over the same wire as everybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from truba.client.remote import RemotePipe
from truba.client.target import parse_target
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
    records_count: int
    bytes: int
    records: tuple[bytes, ...] | None = None


class Admin:
    """One connection for operators. Made by `connect_admin`."""

    def __init__(self, pipe: RemotePipe) -> None:
        self._pipe = pipe

    async def ping(self) -> None:
        await self._pipe.request(b"PING", read=True)

    async def info(self) -> dict[str, str]:
        """The `key:value` lines of INFO."""
        text = (await self._pipe.request(b"INFO", read=True)).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))

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
                yield _session(fields, with_records=False)
            if not cursor:
                return

    async def show(self, session_id: Index) -> SessionInfo:
        """One session with its records. NoSession."""
        return _session(await self._pipe.request(b"SHOW", str(session_id).encode(), read=True), with_records=True)

    async def resume(self, session_id: Index) -> None:
        """Due at once, with fresh limits. NoSession, Busy."""
        await self._pipe.request(b"RESUME", str(session_id).encode())

    async def remove(self, session_id: Index) -> None:
        """Delete a stored or parked session. NoSession, Busy."""
        await self._pipe.request(b"REMOVE", str(session_id).encode())

    async def close(self) -> None:
        await self._pipe.close()


def _session(flat: list[Any], *, with_records: bool) -> SessionInfo:
    fields = {flat[at].decode(): flat[at + 1] for at in range(0, len(flat), 2)}
    records = tuple(fields["records"]) if with_records else None
    return SessionInfo(
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
        records_count=len(records) if records is not None else fields["records"],
        bytes=fields["bytes"],
        records=records,
    )


class ConnectingAdmin:
    """`async with` it, or `await` it and close it yourself."""

    def __init__(self, url: str, user: str | None, password: str | None, timeout_s: float) -> None:
        self._args = (url, user, password, timeout_s)
        self._admin: Admin | None = None

    async def _connect(self) -> Admin:
        url, user, password, timeout_s = self._args
        pipe = RemotePipe([parse_target(url)], None, 0.0, timeout_s, user, password)
        await pipe.open(patience_s=0.0)
        self._admin = Admin(pipe)
        return self._admin

    def __await__(self) -> Generator[Any, None, Admin]:
        return self._connect().__await__()

    async def __aenter__(self) -> Admin:
        return await self._connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._admin is not None
        await self._admin.close()


def connect_admin(
    url: str, *, user: str | None = None, password: str | None = None, timeout_s: float = 10.0
) -> ConnectingAdmin:
    """An operator's connection: no owner token, no second try. Unavailable, NoAuth, NoPerm; ConfigError."""
    return ConnectingAdmin(url, user, password, timeout_s)
