"""The composition root: the only place that names adapters and wires them together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from truba.backup.manifest import SCRATCH
from truba.errors import ConfigError, DataDamaged, DataUnwritable
from truba.hooks.command import CommandHook
from truba.hooks.function import FunctionHook
from truba.install import settle
from truba.kinds import AnyHandler, Handler, Kind
from truba.log.file import FileLog
from truba.log.segment import segment_number
from truba.node.node import Limits, Node, Tell
from truba.ports.parked import HookMaker, ParkedHook
from truba.ports.records import Codec
from truba.ports.transport import Route, Transport
from truba.store.rocks import RocksStore
from truba.transports.local import LocalRoute, local_transport

if TYPE_CHECKING:
    from truba.tls import Contexts
    from truba.webhook import Webhook
    from truba.wire.connection import WireSettings

RESERVE_BYTES = 256 << 20
"""Disk space kept back, as `reserve` of the configuration."""


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
            routes[kind.number] = LocalRoute(_handler(kind.handler, kind.codec))
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


def _handler(function: AnyHandler, codec: Codec[Any] | None) -> Handler:
    if codec is None:
        return cast(Handler, function)
    # Imported when a kind asks for it: most records are bytes.
    from truba.typed import handles

    return handles(codec)(cast(Any, function))


def make_hooks(kinds: Sequence[Kind], makers: Mapping[str, HookMaker] | None = None) -> dict[int, ParkedHook]:
    """Who is told of parked sessions, by kind. `makers`: of hooks that are addresses, by scheme."""
    hooks: dict[int, ParkedHook] = {}
    for kind in kinds:
        hook = kind.on_parked
        if callable(hook):
            hooks[kind.number] = FunctionHook(hook)
        elif isinstance(hook, str):
            scheme = hook.partition(":")[0]
            maker = (makers or {}).get(scheme)
            if maker is None:
                raise ConfigError(
                    f"kind {kind.name!r}: on_parked {hook!r} is neither a command (a list) nor known here"
                )
            hooks[kind.number] = maker(hook, kind)
        elif isinstance(hook, Sequence):
            hooks[kind.number] = CommandHook(hook)
        elif hook is not None:
            hooks[kind.number] = _parked_post(hook)
    return hooks


def posting_hooks(webhooks: Mapping[int, Webhook]) -> dict[str, HookMaker]:
    """Makers of the hooks whose address is posted to; `webhooks`: with what, by number of the kind."""

    def posted(address: str, kind: Kind) -> ParkedHook:
        return _parked_post(webhooks[kind.number])

    return {"https": posted, "http": posted}


def _parked_post(webhook: Webhook) -> ParkedHook:
    with _extra(webhook):
        from truba.transports.notes import ParkedPost
    return ParkedPost(webhook)


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
    with _extra(webhook):
        from truba.transports.webhook import WebhookRoute
    return WebhookRoute(webhook, kinds)


@contextmanager
def _extra(webhook: Webhook) -> Iterator[None]:
    """What posts is imported when it is asked for: it is an extra, and slow to import."""
    try:
        yield
    except ModuleNotFoundError as error:
        what = f"webhook {webhook.url!r}: webhooks need {error.name}; pip install 'truba[webhook]'"
        raise ConfigError(what) from error


def default_transports(
    secrets: Mapping[str, str] | None = None,
    settings: WireSettings | None = None,
    contexts: Mapping[str, Contexts] | None = None,
    webhooks: Mapping[str, Webhook] | None = None,
) -> dict[str, Transport]:
    """The shipped transports. `secrets`: what to prove to the handler service of each address that is dialled
    (`truba://`, `trubas://`, `unix:`); `contexts`: TLS of each `trubas://` one, the system's authorities where there is
    none; `webhooks`: how to post to each `https://` one."""

    def dialled(address: str, kinds: Collection[Kind]) -> Route:
        # Imported when a route asks for it: an embedded pipe with handlers of its own starts twice as fast without.
        from truba.tls import Contexts, Tls
        from truba.transports.dial import DialRoute
        from truba.wire.connection import WireSettings

        tls = (contexts or {}).get(address)
        if tls is None and address.startswith("trubas:"):
            tls = Contexts(Tls(), server_side=False)
        return DialRoute(address, (secrets or {}).get(address, ""), settings or WireSettings(), tls)

    def posted(address: str, kinds: Collection[Kind]) -> Route:
        webhook = (webhooks or {}).get(address)
        if webhook is None:
            raise ConfigError(
                f"handler {address!r}: there is no secret to sign with; write"
                f' handler=truba.webhook.Webhook({address!r}, secrets=["whsec_..."])'
            )
        return _posting(webhook, kinds)

    shipped: dict[str, Transport] = {"local": local_transport, "https": posted, "http": posted}
    return shipped | dict.fromkeys(("truba", "trubas", "unix"), dialled)


def build(
    data: Path,
    kinds: Sequence[Kind],
    *,
    name: str = "",
    tell: Tell | None = None,
    limits: Limits | None = None,
    transports: Mapping[str, Transport] | None = None,
    hook_makers: Mapping[str, HookMaker] | None = None,
    segment_bytes: int = 32 << 20,
    reserve_bytes: int = RESERVE_BYTES,
) -> Parts:
    """Open log and store under `data` and put a node on them. Must run on the loop. ConfigError, DataError."""
    check_kinds(kinds)
    routes = make_routes(kinds, default_transports() if transports is None else transports)
    hooks = make_hooks(kinds, hook_makers)
    settle(data)
    refuse_half(data)
    log = FileLog.open(data / "log", segment_bytes=segment_bytes, reserve_bytes=reserve_bytes)
    try:
        # What a backup left that was killed. If it stays, the next backup says so.
        shutil.rmtree(data / SCRATCH, ignore_errors=True)
        store = RocksStore.open(data / "store")
        try:
            node = Node(log, store, kinds, routes, name=name, limits=limits, tell=tell, hooks=hooks)
        except BaseException:
            store.close()
            raise
    except BaseException:
        log.close()
        raise
    return Parts(node, log, store)


def refuse_half(data: Path) -> None:
    """DataDamaged: a store without its log. A log is there before its store is, and to begin another one would be to
    take everything that no checkpoint holds for finished. DataUnwritable: it may not be looked at."""
    try:
        half = (data / "store" / "CURRENT").exists() and not _segments(data / "log")
    except OSError as error:
        raise DataUnwritable(f"{data} cannot be looked at: {error}") from error
    if half:
        raise DataDamaged(
            f"{data} holds a store, but no log: restore the directory from a copy; or, to begin with an empty pipe,"
            " move the store's directory aside too"
        )


def _segments(log: Path) -> list[str]:
    """Not by a glob, for which a directory that may not be read is an empty one."""
    try:
        return [name for name in os.listdir(log) if segment_number(name) is not None]  # noqa: PTH208
    except FileNotFoundError:
        return []
