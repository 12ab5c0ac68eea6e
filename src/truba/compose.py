"""The composition root: the only place that names adapters and wires them together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from truba.errors import ConfigError, DataDamaged
from truba.install import settle
from truba.kinds import Kind
from truba.log.file import FileLog
from truba.node.node import Limits, Node, Tell
from truba.ports.transport import Route, Transport
from truba.store.rocks import RocksStore
from truba.transports.local import LocalRoute, local_transport

if TYPE_CHECKING:
    from truba.webhook import Webhook
    from truba.wire.connection import WireSettings


@dataclass(slots=True)
class Parts:
    """A node and what it stands on, opened and closed together."""

    node: Node
    log: FileLog
    store: RocksStore

    async def close(self) -> None:
        """Stop the node, then give log and store back. Whatever goes wrong, both are closed."""
        try:
            await self.node.stop()
        finally:
            self.release()

    def release(self) -> None:
        """Give log and store back; the node has stopped."""
        try:
            self.log.close()
        finally:
            self.store.close()


def make_routes(kinds: Sequence[Kind], transports: Mapping[str, Transport]) -> dict[int, Route]:
    """One route for each handler address; kinds with the same address share it."""
    routes: dict[int, Route] = {}
    shared: dict[str, list[Kind]] = {}
    posted: dict[Webhook, list[Kind]] = {}
    for kind in kinds:
        if callable(kind.handler):
            routes[kind.number] = LocalRoute(kind.handler)
        elif isinstance(kind.handler, str):
            shared.setdefault(kind.handler, []).append(kind)
        else:
            posted.setdefault(kind.handler, []).append(kind)
    for webhook, group in posted.items():
        route = _posting(webhook, group)
        routes.update((kind.number, route) for kind in group)
    for address, group in shared.items():
        scheme = address.partition(":")[0]
        transport = transports.get(scheme)
        if transport is None:
            known = ", ".join(sorted(transports))
            raise ConfigError(f"kind {group[0].name!r}: handler {address!r} has an unknown scheme; known are {known}")
        route = transport(address, group)
        routes.update((kind.number, route) for kind in group)
    return routes


def check_kinds(kinds: Sequence[Kind]) -> None:
    """ConfigError for two kinds with one number or one name, or none at all."""
    if not kinds:
        raise ConfigError("no kind is configured: there is nothing that a session could be of")
    seen: dict[int | str, str] = {}
    for kind in kinds:
        for key in (kind.number, kind.name):
            if key in seen:
                raise ConfigError(f"kinds {seen[key]!r} and {kind.name!r} share {key!r}")
            seen[key] = kind.name


def _posting(webhook: Webhook, kinds: Collection[Kind]) -> Route:
    try:
        from truba.transports.webhook import WebhookRoute
    except ModuleNotFoundError as error:  # an extra, and slow to import
        what = f"handler {webhook.url!r}: webhooks need {error.name}; pip install 'truba[webhook]'"
        raise ConfigError(what) from error
    return WebhookRoute(webhook, kinds)


def default_transports(
    secrets: Mapping[str, str] | None = None,
    settings: WireSettings | None = None,
    webhooks: Mapping[str, Webhook] | None = None,
) -> dict[str, Transport]:
    """The shipped transports. `secrets`: what to prove to the handler service of each `truba://` address; `webhooks`:
    how to post to each `https://` one."""

    def dialled(address: str, kinds: Collection[Kind]) -> Route:
        # Imported when a route asks for it: an embedded pipe with handlers of its own starts twice as fast without.
        from truba.transports.dial import DialRoute
        from truba.wire.connection import WireSettings

        return DialRoute(address, (secrets or {}).get(address, ""), settings or WireSettings())

    def posted(address: str, kinds: Collection[Kind]) -> Route:
        webhook = (webhooks or {}).get(address)
        if webhook is None:
            raise ConfigError(
                f"handler {address!r}: there is no secret to sign with; write"
                f' handler=truba.webhook.Webhook({address!r}, secrets=["whsec_..."])'
            )
        return _posting(webhook, kinds)

    return {"local": local_transport, "truba": dialled, "https": posted, "http": posted}


def build(
    data: Path,
    kinds: Sequence[Kind],
    *,
    name: str = "",
    tell: Tell | None = None,
    limits: Limits | None = None,
    transports: Mapping[str, Transport] | None = None,
    segment_bytes: int = 32 << 20,
    reserve_bytes: int = 256 << 20,
) -> Parts:
    """Open log and store under `data` and put a node on them. Must run on the loop. ConfigError, DataError."""
    check_kinds(kinds)
    routes = make_routes(kinds, default_transports() if transports is None else transports)
    settle(data)
    _refuse_half(data)
    log = FileLog.open(data / "log", segment_bytes=segment_bytes, reserve_bytes=reserve_bytes)
    try:
        store = RocksStore.open(data / "store")
        try:
            node = Node(log, store, kinds, routes, name=name, limits=limits, tell=tell)
        except BaseException:
            store.close()
            raise
    except BaseException:
        log.close()
        raise
    return Parts(node, log, store)


def _refuse_half(data: Path) -> None:
    """DataDamaged: a store without its log. A log is there before its store is, and to begin another one would be to
    take everything that no checkpoint holds for finished."""
    if (data / "store" / "CURRENT").exists() and not any((data / "log").glob("segment-*.log")):
        raise DataDamaged(
            f"{data} holds a store, but no log: restore the directory from a copy; or, to begin with an empty pipe,"
            " move the store's directory aside too"
        )
