"""TLS on every connection, whichever side dialled: `files` makes contexts of certificates, `layer` speaks.

    Contexts(Tls(certificate=..., key=...), server_side=True)    read from files, and again whenever those change
    Secured(make, contexts.current(), ...)                       between a plain transport and the protocol inside
    await connect(make, host, port, contexts)                    dial, shake hands, verify

asyncio's own layer closes a connection whose handshake failed without the alert that says why, and takes one context
for the life of a server; uvloop's does the same. Here the other side hears why, and each connection has the newest
certificates.
"""

from truba.tls.files import Contexts, Tls
from truba.tls.layer import (
    HANDSHAKE_S_MAX,
    HandshakeFailed,
    Secured,
    connect,
    failure_of,
    open_streams,
    peer_names,
    shake_hands,
)

__all__ = [
    "HANDSHAKE_S_MAX",
    "Contexts",
    "HandshakeFailed",
    "Secured",
    "Tls",
    "connect",
    "failure_of",
    "open_streams",
    "peer_names",
    "shake_hands",
]
