"""Who asks, and may they: an ASGI layer around everything else.

* Where tokens are configured, each request but a few open ones shows one (`Authorization: Bearer ...`). Only hashes are
  kept; all of them are compared, in constant time each.
* Where none is, the address is of this machine only. A browser on it can still be sent here by any page that it
  shows, so the Host must be this machine's (no name that leads here by a trick of DNS), and nothing may be changed by a
  request that a browser says comes from another site.
* No request body is larger than 64 KiB, and every answer carries headers that keep a browser from believing anything
  but its own files.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from truba.admin.problems import of_operation
from truba.admin.subject import Right, Token
from truba.errors import NoAuth, NoPerm, OperationError, TooBig
from truba.rejections import Rejections

OPEN = frozenset({"/", "/openapi.json", "/v1/health", "/v1/readiness", "/v1/serving"})
"""For everybody who can connect: what machines ask to see whether it lives, and pages without any data in them."""

OPEN_BELOW = "/page/"

READS = frozenset({"GET", "HEAD", "OPTIONS"})

BODY_BYTES_MAX = 64 << 10

PATH_SHOWN = 64
"""Of what a stranger asked for, in the log."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """`app` behind it finds who asks in `request.state.who`, and from where in `request.state.peer`."""

    def __init__(
        self,
        app: ASGIApp,
        tokens: Sequence[Token],
        rejections: Rejections,
        local_names: frozenset[str] = frozenset(),
    ) -> None:
        """`rejections`: told of wrong tokens. `local_names`: further names of this machine that a Host may have, where
        there are no tokens."""
        self._app = app
        self._rejections = rejections
        self._tokens = tokens
        self._hosts = LOCAL | local_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        headers = Headers(scope=scope)
        client = scope.get("client")
        peer = f"{client[0]}:{client[1]}" if client else ""
        try:
            self._refuse_other_sites(scope, headers)
            who = self._who(scope, headers, peer)
            if int(headers.get("content-length") or 0) > BODY_BYTES_MAX:
                raise TooBig(f"a request's body is at most {BODY_BYTES_MAX} bytes; nothing was changed")
        except OperationError as refusal:
            await of_operation(refusal)(scope, receive, dressed)
            return
        scope.setdefault("state", {}).update(who=who, peer=peer)
        await self._app(scope, _bounded(receive), dressed)

    def _who(self, scope: Scope, headers: Headers, peer: str) -> str:
        path: str = scope["path"]
        if not self._tokens:
            return "local"
        if path in OPEN or path.startswith(OPEN_BELOW):
            return ""
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(shown.strip().encode("latin-1", "replace")).digest()
        found: Token | None = None
        for token in self._tokens:
            if hmac.compare_digest(digest, token.digest) and scheme.lower() == "bearer":
                found = token
        if found is None:
            if shown:
                self._rejections.add("wrong token", peer=peer, path=path[:PATH_SHOWN])
            raise NoAuth("show a token: Authorization: Bearer ...; nothing was changed")
        needs: Right = "read" if scope["method"] in READS else "operate"
        if needs == "operate" and found.may != "operate":
            raise NoPerm(f"{found.name} may read only; nothing was changed")
        return found.name

    def _refuse_other_sites(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._tokens and _name(host) not in self._hosts:
            raise NoPerm(f"Host is {host[:64]!r}: without tokens only this machine is served; nothing was changed")
        if scope["method"] in READS:
            return
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise NoPerm(f"a page of {origin[:64]!r} may change nothing here; nothing was changed")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise NoPerm("a page of another site may change nothing here; nothing was changed")


def _name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _bounded(receive: Receive) -> Receive:
    """However long its sender says that it is, or does not."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(cast(bytes, message.get("body", b"")))
        if seen > BODY_BYTES_MAX:
            raise TooBig(f"a request's body is at most {BODY_BYTES_MAX} bytes; nothing was changed")
        return message

    return bounded
