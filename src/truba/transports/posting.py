"""Signed POSTs to one address through one pool of connections, with everything bounded. No retries of its own.

What can go wrong is sorted by one question: may the other side have seen the POST? `Unreached` means it has not.
Redirects are not followed, proxies of the environment and cookies are not used, compression is not asked for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType

import aiohttp
from yarl import URL

from truba.errors import ConfigError, TrubaError
from truba.tls import Contexts, Tls
from truba.webhook import Webhook
from truba.webhook.bodies import CONTENT_TYPES, excerpt
from truba.webhook.signature import sign
from truba.webhook.verdict import Reply

CONNECT_S_MAX = 5.0
"""Name, connection and TLS together."""

KEEP_ALIVE_S = 4.0
"""Servers close idle connections after 5 s and more (Node's and uvicorn's default). Who is first is spared the race in
which a POST meets a connection that has just been closed, and nobody knows whether it was seen."""

REASON_BYTES_MAX = 1024
"""Read of the body of an answer that is no 2xx."""

USER_AGENT = "truba-webhook/1"


class Unreached(Exception):
    """No connection: nobody has seen the POST."""


class Broken(Exception):
    """The connection broke, or what came was no HTTP: whether the POST was seen is unknown."""


class TooLarge(Exception):
    """An answer came, and is over its bound."""


class NotDelivered(TrubaError):
    """Nobody has answered 2xx."""


class _NotFresh(aiohttp.ClientError):
    """Something was said on an idle connection; nothing has been sent on it since."""


class _Request(aiohttp.ClientRequest):
    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        # A receiver that answers a POST twice would otherwise have the second answer taken for that to the next
        # session. aiohttp looks at this when a connection goes idle, not when it is taken up again.
        if conn.protocol is None or conn.protocol.should_close:
            raise _NotFresh
        return await super().send(conn)


class Poster:
    """One address. Make it on the loop; `tls` comes from `tls_contexts`."""

    def __init__(
        self,
        webhook: Webhook,
        tls: Contexts | None,
        *,
        connections_max: int,
        answer_bytes_max: int,
        connect_s: float = CONNECT_S_MAX,
    ) -> None:
        self._webhook = webhook
        self._url = URL(webhook.url, encoded=True)
        self._answer_bytes_max = answer_bytes_max
        self._tls = tls
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            # How long an answer may take is up to the caller.
            timeout=aiohttp.ClientTimeout(total=None, connect=min(connect_s, CONNECT_S_MAX)),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "application/json, */*;q=0.1"},
            read_bufsize=64 * 1024,
            request_class=_Request,
        )

    def headers(self, message_id: str, timestamp_s: int, body: Sequence[bytes]) -> dict[str, str]:
        """What says and proves what a body, in parts, is. Takes 2 ms for a megabyte, in any thread."""
        return {
            "Content-Type": CONTENT_TYPES[self._webhook.format],
            "Content-Length": str(sum(map(len, body))),
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": sign(self._webhook.keys, message_id, timestamp_s, *body),
        }

    async def post(self, body: Sequence[bytes], headers: Mapping[str, str]) -> Reply:
        """The answer, its body read up to its bound. Unreached, Broken, TooLarge. Cancel it to give it up."""
        while True:
            with suppress(_NotFresh):  # that connection is closed now: try the next, or a new one
                return await self._post(body, headers)

    async def _post(self, body: Sequence[bytes], headers: Mapping[str, str]) -> Reply:
        try:
            async with self._session.post(
                self._url,
                data=_each(body),
                headers=headers,
                allow_redirects=False,
                ssl=True if self._tls is None else self._tls.current(),
            ) as response:
                found = {name.lower(): value for name, value in response.headers.items()}
                well = 200 <= response.status < 300
                said, ended = await _read(response.content, self._answer_bytes_max if well else REASON_BYTES_MAX)
                if not ended:
                    response.close()  # what is left is never read, and the connection is not used again
                    if well:
                        raise TooLarge(f"answered {response.status} with more than {self._answer_bytes_max} bytes")
                return Reply(response.status, found, said)
        except _NotFresh:
            raise
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreached(_told(error)) from error
        except aiohttp.ClientResponseError as error:
            raise Broken(f"what answers does not speak HTTP: {excerpt(error.message.encode())}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(f"the connection broke before the answer was complete: {_told(error)}") from error

    async def close(self) -> None:
        await self._session.close()

    async def __aenter__(self) -> Poster:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


async def _each(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(0)  # a fast network takes one part after the other, and nobody else has a turn


async def _read(content: aiohttp.StreamReader, bytes_max: int) -> tuple[bytes, bool]:
    """At most so many bytes, and whether that is all."""
    read = bytearray()
    while chunk := await content.read(bytes_max + 1 - len(read)):
        read += chunk
        if len(read) > bytes_max:
            return bytes(read[:bytes_max]), False
    return bytes(read), True


def tls_contexts(webhook: Webhook) -> Contexts | None:
    """None for http://. ConfigError when a file of certificates cannot be used."""
    if not webhook.url.startswith("https:"):
        return None
    try:
        return Contexts(Tls(webhook.ca_file, webhook.certificate_file, webhook.key_file), server_side=False)
    except ConfigError as error:
        raise ConfigError(f"webhook {webhook.url!r}: {error}") from error


def _told(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientSSLError():
            return f"it does not speak TLS as it should: {getattr(error.os_error, 'reason', None) or error.os_error}"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno or 0  # asyncio's own words say less: "Connect call failed"
            return os.strerror(number) if number > 0 else str(error.os_error.strerror or error.os_error)
        case aiohttp.ConnectionTimeoutError():
            return "no connection in time"
        case aiohttp.ServerDisconnectedError():
            return "it hung up"
        case _:
            return str(error) or type(error).__name__
