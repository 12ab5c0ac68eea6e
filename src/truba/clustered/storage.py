"""What a node of a cluster keeps on its own disk: the same directory that a pipe by itself has.

`replace` puts a peer's checkpoint in its place. Opened before the member runs, closed after it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import structlog

from truba.address import Address
from truba.cluster.peers import Peer, statuses
from truba.config import Config
from truba.errors import DataDamaged, OperationError, Unavailable
from truba.install import Arrival, settle
from truba.log.file import FileLog
from truba.store.rocks import RocksStore
from truba.tls import Contexts

log = structlog.get_logger("truba.storage")


def peers_tls(config: Config) -> Contexts | None:
    """How the other nodes are dialled. None: in plain text."""
    cluster = config.cluster
    return None if cluster is None or cluster.tls is None else Contexts(cluster.tls.files, server_side=False)


def has_log(data: Path) -> bool:
    """Whether anything was ever logged or installed there."""
    settle(data)
    return any((data / "log").glob("segment-*.log"))


class NodeStorage:
    """`log` and `store` are others after a `replace`: ask for them anew."""

    def __init__(
        self,
        data: Path,
        log_id: bytes,
        peers: Mapping[str, Address],
        secret: bytes,
        *,
        tls: Contexts | None = None,
        segment_bytes: int = 32 << 20,
        reserve_bytes: int = 256 << 20,
    ) -> None:
        """Opens both. `peers`: the peer doors of the other nodes. DataError; DataForeign: it is another cluster's."""
        self._data = data
        self._log_id = log_id
        self._peers = peers
        self._secret = secret
        self._tls = tls
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
        settle(data)
        self._open()

    def _open(self) -> None:
        self.log = FileLog.open(
            self._data / "log",
            segment_bytes=self._segment_bytes,
            reserve_bytes=self._reserve_bytes,
            log_id=self._log_id,
        )
        try:
            self.store = RocksStore.open(self._data / "store")
        except BaseException:
            self.log.close()
            raise

    def close(self) -> None:
        try:
            self.log.close()
        finally:
            self.store.close()

    async def replace(self) -> None:
        """A checkpoint of the peer whose log is the longest. Unavailable: nobody has a longer one, or gives it now."""
        asked = await statuses(self._peers, self._secret, tls=self._tls)
        own = self.log.tail.seq
        ahead = sorted((status.seq, name) for name, status in asked.items() if status.seq > own)
        for _, name in reversed(ahead):
            try:
                await self._take(name)
            except (OperationError, DataDamaged) as error:
                log.warning("no checkpoint from this peer", peer=name, error=str(error))
            else:
                return
        silent = sorted(self._peers.keys() - asked.keys())
        raise Unavailable(
            f"no peer gives a checkpoint beyond event {own} now (asked {', '.join(sorted(asked)) or 'nobody'};"
            f" without an answer: {', '.join(silent) or 'nobody'})"
        )

    async def _take(self, name: str) -> None:
        arrival = await asyncio.to_thread(Arrival, self._data)
        try:
            async with Peer.visit(self._peers[name], self._secret, tls=self._tls) as peer:
                exported = await peer.fetch(arrival.store)
            if exported.cluster != self._log_id:
                raise DataDamaged(f"{name} gives a checkpoint of another cluster, {exported.cluster.hex()}")
            if exported.position.seq <= self.log.tail.seq:
                raise Unavailable(f"{name} gives a checkpoint of event {exported.position.seq} only")
            self.close()
            installing = asyncio.ensure_future(
                asyncio.to_thread(arrival.install, self._log_id, exported.position, segment_bytes=self._segment_bytes)
            )
            try:
                await asyncio.shield(installing)
            finally:
                await asyncio.wait([installing])  # if this was cancelled, the thread knows nothing of that
                # If it failed half-way, an empty log must not take the name of the one that was moved aside.
                arrival.close()
                await asyncio.to_thread(settle, self._data)
                self._open()
        finally:
            arrival.close()
        log.info("checkpoint installed", peer=name, term=exported.position.term, seq=exported.position.seq)
