"""Who we are to NATS, and that it is told over TLS where TLS is asked for.

A `tls://` address is no promise: nats-py goes on in plain text with a server, or with whoever stands in its place, that
does not ask for TLS. So the password is given out only after the handshake, by which the server's certificate was
verified, and a connection that has come about without one is refused.
"""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from truba.streams.settings import JetStreamSettings


class PlainText(NatsError):
    """TLS was asked for, and the server does not speak it."""

    def __str__(self) -> str:
        return "the server does not ask for TLS, and the configuration does"


def is_plain(client: Client) -> bool:
    """Whether what is said to this server goes over the wire as it is."""
    return not client._server_info.get("tls_required")  # noqa: SLF001 - what decides in nats-py; told nowhere else


def login(client: Client, settings: JetStreamSettings, user: str | None, password: str | None) -> dict[str, Any]:
    """Arguments of `Client.connect`: TLS if it is asked for, and a user whose password is told only over it."""
    arguments: dict[str, Any] = {}
    context = settings.tls()
    if context is not None:
        arguments["tls"] = context
    if user is not None:

        def tell() -> str:
            if context is not None and is_plain(client):
                raise PlainText
            assert password is not None  # they go together
            return password

        arguments.update(user=user, password=tell)
    return arguments
