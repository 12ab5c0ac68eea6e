"""Who we are to NATS, and that it is told over TLS where TLS is asked for.

A `tls://` address is no promise: nats-py goes on in plain text with a server, or with whoever stands in its place, that
does not ask for TLS. So a password, or a signature, is given out only after the handshake, by which the server's
certificate was verified, and a connection that has come about without one is refused.
"""

from __future__ import annotations

from pathlib import Path
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


def login(
    client: Client, settings: JetStreamSettings, user: str | None, password: str | None, credentials_file: Path | None
) -> dict[str, Any]:
    """Arguments of `Client.connect`: TLS if it is asked for, and a user who proves who it is only over it.

    ConfigError: the file of credentials cannot be used. ModuleNotFoundError: what signs with it is not installed.
    """
    arguments: dict[str, Any] = {}
    context = settings.tls()
    if context is not None:
        arguments["tls"] = context

    def refuse_plain() -> None:
        if context is not None and is_plain(client):
            raise PlainText

    if user is not None:

        def tell() -> str:
            refuse_plain()
            assert password is not None  # they go together
            return password

        arguments.update(user=user, password=tell)
    if credentials_file is not None:
        from truba.streams.credentials import CredentialsFile  # needs a package that a password does not

        file = CredentialsFile(credentials_file)

        def sign(nonce: str) -> bytes:
            refuse_plain()
            return file.sign(nonce)

        arguments.update(signature_cb=sign, user_jwt_cb=file.jwt)
    return arguments
