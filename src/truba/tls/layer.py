"""TLS between a plain transport and the protocol inside, on any loop.

    bytes -> incoming BIO -> SSLObject -> inside.data_received        inside: what is to be secured
    bytes <- outgoing BIO <- SSLObject <- SecuredTransport.write

Encryption is OpenSSL's; this only moves bytes. Flow control is that of the plain transport, which buffers what is
encrypted. A handshake that fails ends with OpenSSL's alert on the wire, then waits a little for the other side to read
it: closed at once, a connection with unread bytes is reset, and the alert with it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar, cast

from truba.tls.files import Contexts

P = TypeVar("P", bound=asyncio.BaseProtocol)

HANDSHAKE_S_MAX = 10.0
"""Who has not shaken hands by then is hung up."""

LINGER_S = 1.0
"""How long a refused peer may take to read why."""

_READ_BYTES = 256 << 10
_HANDSHAKE, _ALERT = 0x16, 0x15
"""First bytes of whoever speaks TLS."""


class HandshakeFailed(ConnectionError):
    """There is no TLS connection; the message says which side did not accept what, and who dialled is told what to do.
    Nothing was sent inside."""


class Secured(asyncio.Protocol):
    """The plain transport's protocol. `inside` is made by `make` once hands are shaken, and hears of nothing before.

    `failed` is called, once, if it does not come to that. `plain_answer`: what a server says to who does not speak TLS.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        *,
        server_side: bool,
        host: str | None = None,
        made: Callable[[], object] = lambda: None,
        failed: Callable[[HandshakeFailed], object] = lambda error: None,
        plain_answer: bytes = b"",
    ) -> None:
        self._plain: asyncio.Transport
        self._make = make
        self._made = made
        self._failed = failed
        self._plain_answer = plain_answer
        self._server_side = server_side
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=host)
        self._state: Literal["new", "shaking", "open", "over"] = "new"
        self._heard_tls = False  # the first byte was right
        self._heard_end = False  # the other side has said that nothing follows
        self._alarm: asyncio.TimerHandle | None = None
        self.inside: asyncio.Protocol
        self.transport: SecuredTransport

    @property
    def plain(self) -> asyncio.Transport | None:
        """None: there is no connection yet."""
        return getattr(self, "_plain", None)

    # -- asyncio ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._plain = cast(asyncio.Transport, transport)
        self._state = "shaking"
        self._alarm = asyncio.get_running_loop().call_later(HANDSHAKE_S_MAX, self._late)
        if not self._server_side:
            self._shake()

    def data_received(self, data: bytes) -> None:
        if self._state == "over":
            return
        if self._state == "shaking":
            if not self._heard_tls and not self._speaks_tls(data):
                return
            self._incoming.write(data)
            if not self._shake():
                return
        else:
            self._incoming.write(data)
        self._read()

    def eof_received(self) -> bool:
        """Without TLS's own farewell nothing more can be trusted to come; with it, answers may still go out."""
        if self._state == "shaking":
            self._refuse("the other side closed the connection during the handshake; does it speak TLS?")
        return self._state == "open" and self._heard_end

    def connection_lost(self, error: Exception | None) -> None:
        state, self._state = self._state, "over"
        self._cancel_alarm()
        if state == "shaking":
            why = f": {error}" if error else "; does it speak TLS?"
            self._failed(HandshakeFailed(f"TLS: the other side closed the connection during the handshake{why}"))
        elif state == "open":
            self.inside.connection_lost(error)

    def pause_writing(self) -> None:
        if self._state == "open":
            self.inside.pause_writing()

    def resume_writing(self) -> None:
        if self._state == "open":
            self.inside.resume_writing()

    # -- the handshake ---------------------------------------------------------------------------------------

    def _speaks_tls(self, data: bytes) -> bool:
        if data[0] in (_HANDSHAKE, _ALERT):
            self._heard_tls = True
            return True
        if self._server_side:
            self._plain.write(self._plain_answer)
            self._refuse("the other side does not speak TLS, and this port speaks nothing else")
        else:
            self._refuse("what answers there does not speak TLS")
        return False

    def _shake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._refuse(_words(error, dialled=not self._server_side))
            return False
        self._flush()
        self._cancel_alarm()
        self._state = "open"
        self.inside = self._make()
        self.transport = SecuredTransport(self)
        self.inside.connection_made(self.transport)
        self._made()
        return True

    def _late(self) -> None:
        self._alarm = None
        self._refuse(f"no handshake within {HANDSHAKE_S_MAX:g} s")

    def _refuse(self, why: str) -> None:
        """There is no connection. What was said about it still leaves."""
        self._state = "over"
        self._cancel_alarm()
        self._linger()
        self._failed(HandshakeFailed(f"TLS: {why}"))

    def _linger(self) -> None:
        if self._plain.is_closing():
            return
        with suppress(OSError):  # it is gone already
            self._plain.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self._plain.abort)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # -- afterwards --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        pieces: list[bytes] = []
        broken: ssl.SSLError | None = None
        try:
            while piece := self.tls.read(_READ_BYTES):
                pieces.append(piece)
            ended = True
        except ssl.SSLWantReadError:
            ended = False
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            ended, broken = False, error
        self._flush()  # answers of TLS itself
        if pieces:
            self.inside.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if broken is not None:
            self._break(broken)
        elif ended and not self._heard_end and self._state == "open":
            self._heard_end = True
            if not self.inside.eof_received():
                self.close()

    def _break(self, error: ssl.SSLError) -> None:
        """An alert (in TLS 1.3 a refused client hears of it only now), or bytes that are not what was sent."""
        if self._state != "open":
            return
        self._state = "over"
        self._linger()
        self.inside.connection_lost(HandshakeFailed(f"TLS: {_words(error, dialled=not self._server_side)}"))

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._plain.write(self._outgoing.read())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._state != "open":
            return
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.tls.write(rest) :]  # one TLS record at most
            except ssl.SSLError:  # after our own farewell: there is nobody to read it
                return
        self._flush()

    def farewell(self) -> None:
        """TLS's own: from here on we write nothing. What the other side says can still be read."""
        if self._state == "open":
            with suppress(ssl.SSLError, ValueError):  # it wants the other side's too, which may come or not
                self.tls.unwrap()
            self._flush()

    def close(self) -> None:
        if not self._plain.is_closing():
            self.farewell()
            self._plain.close()


class SecuredTransport(asyncio.Transport):
    """What `inside` writes to. Sizes of its buffers are of encrypted bytes."""

    def __init__(self, layer: Secured) -> None:
        super().__init__()
        assert layer.plain is not None  # it has just shaken hands
        self._layer = layer
        self._plain = layer.plain
        self._own = {
            "sslcontext": layer.tls.context,
            "ssl_object": layer.tls,
            "peercert": layer.tls.getpeercert(),
            "cipher": layer.tls.cipher(),
        }

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._own[name] if name in self._own else self._plain.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._layer.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self._layer.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._layer.farewell()

    def close(self) -> None:
        self._layer.close()

    def abort(self) -> None:
        self._plain.abort()

    def is_closing(self) -> bool:
        return self._plain.is_closing()

    def pause_reading(self) -> None:
        self._plain.pause_reading()

    def resume_reading(self) -> None:
        self._plain.resume_reading()

    def is_reading(self) -> bool:
        return self._plain.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._plain.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._plain.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._plain.get_write_buffer_limits()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._layer.inside

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._layer.inside = cast(asyncio.Protocol, protocol)


async def connect(
    make: Callable[[], P], host: str, port: int, contexts: Contexts | None
) -> tuple[asyncio.Transport, P]:
    """Dial. Without contexts: plain. OSError, of which HandshakeFailed is one."""
    loop = asyncio.get_running_loop()
    if contexts is None:
        return cast(tuple[asyncio.Transport, P], await loop.create_connection(cast(Any, make), host, port))
    shaken: asyncio.Future[None] = loop.create_future()

    def made() -> None:
        if not shaken.done():
            shaken.set_result(None)

    def failed(error: HandshakeFailed) -> None:
        if not shaken.done():
            shaken.set_exception(error)

    context = contexts.current()
    plain, layer = await loop.create_connection(
        lambda: Secured(cast(Any, make), context, server_side=False, host=host, made=made, failed=failed), host, port
    )
    try:
        await shaken
    except asyncio.CancelledError:
        plain.abort()
        raise
    return layer.transport, cast(P, layer.inside)


async def open_streams(
    host: str, port: int, contexts: Contexts | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `asyncio.open_connection`, and as `connect`. OSError."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    transport, protocol = await connect(lambda: asyncio.StreamReaderProtocol(reader, loop=loop), host, port, contexts)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def shake_hands(sock: socket.socket, host: str, contexts: Contexts) -> ssl.SSLSocket:
    """The same for who dialled with a blocking socket: it is spoken through what is returned. OSError, as `connect`."""
    try:
        return contexts.current().wrap_socket(sock, server_hostname=host)
    except ssl.SSLError as error:
        raise failure_of(error) from error


def failure_of(error: ssl.SSLError) -> HandshakeFailed:
    """An error of OpenSSL's, in the words of who dialled. With TLS 1.3 the first read tells that one is refused."""
    return HandshakeFailed(f"TLS: {_words(error, dialled=True)}")


def peer_names(transport: asyncio.BaseTransport) -> frozenset[str]:
    """Names in the other side's certificate, which was verified: its common name, and the alternative ones."""
    certificate: Mapping[str, Any] | None = transport.get_extra_info("peercert")
    if not certificate:
        return frozenset()
    common = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
    kinds = ("DNS", "URI", "email", "IP Address")
    return frozenset(common | {value for kind, value in certificate.get("subjectAltName", ()) if kind in kinds})


_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})

_SHOW_ANOTHER = "; show one that it accepts: --certificate and --key of a command, certificate and key elsewhere"


def _words(error: ssl.SSLError, *, dialled: bool) -> str:
    """What went wrong, as a person would say it. `dialled`: and what to do about it, for that is on our side."""
    if isinstance(error, ssl.SSLCertVerificationError):
        what_to_do = f"; {_believing(error.verify_code)}" if dialled else ""
        return f"the other side's certificate is not accepted: {error.verify_message.rstrip('.')}{what_to_do}"
    reason = error.reason or str(error)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the other side shows no certificate, and must"
    _, alert, what = reason.partition("_ALERT_")
    if alert:
        what = what.replace("_", " ").lower()
        if "certificate" in what or "unknown ca" in what:
            return f"the other side does not accept our certificate: {what}{_SHOW_ANOTHER if dialled else ''}"
        return f"the other side ends the connection: {what}"
    if dialled and reason in _NOT_TLS:
        return "what answers there does not speak TLS"
    return reason.replace("_", " ").lower()


def _believing(verify_code: int) -> str:
    """What makes a certificate that OpenSSL refused with this code one that it takes."""
    match verify_code:
        case 9 | 10:  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
            return "it needs a new one, unless this machine's clock is wrong"
        case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
            return "dial a name that it holds, or have one issued that holds this one (subjectAltName)"
        case _:
            return "name the file of its authority: --ca of a command, ca elsewhere"
