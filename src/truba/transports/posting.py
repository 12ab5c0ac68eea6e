"""Signed POSTs to one address through one pool of connections, with everything bounded. No retries of its own.

What can go wrong is sorted by one question: may the other side have seen the POST? `Unreached` means it has not.
Redirects are not followed, proxies of the environment and cookies are not used, compression is not asked for.
"""

from __future__ import annotations

import io
import os
import ssl
from types import TracebackType

import aiohttp
from yarl import URL

from truba.errors import ConfigError
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


class Refusable(Exception):
    """An answer came, and is out of bounds."""


class Poster:
    """One address. Make it on the loop; `tls` comes from `tls_context`."""

    def __init__(
        self,
        webhook: Webhook,
        tls: ssl.SSLContext | None,
        *,
        connections_max: int,
        answer_bytes_max: int,
        connect_s: float = CONNECT_S_MAX,
    ) -> None:
        self._webhook = webhook
        self._url = URL(webhook.url, encoded=True)
        self._answer_bytes_max = answer_bytes_max
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=tls or True, limit=connections_max, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=10
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # How long an answer may take is up to the caller.
            timeout=aiohttp.ClientTimeout(total=None, connect=min(connect_s, CONNECT_S_MAX)),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "application/json, */*;q=0.1"},
            read_bufsize=64 * 1024,
        )

    async def post(self, message_id: str, timestamp_s: int, body: bytes) -> Reply:
        """The answer, its body read up to its bound. Unreached, Broken, Refusable. Cancel it to give it up."""
        return await self.send(body, self.headers(message_id, timestamp_s, body))

    def headers(self, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
        """What proves who sent it. Takes a quarter of a second for 64 MiB."""
        return {
            "Content-Type": CONTENT_TYPES[self._webhook.format],
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": sign(self._webhook.keys, message_id, timestamp_s, body),
        }

    async def send(self, body: bytes, headers: dict[str, str]) -> Reply:
        """As `post`, with the headers made already."""
        try:
            async with self._session.post(
                # A file, because it is sent in pieces, between which the loop goes on.
                self._url,
                data=io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
            ) as response:
                # Closed, not released: what is left unread is never read, and the connection is not used again.
                found = {name.lower(): value for name, value in response.headers.items()}
                if not 200 <= response.status < 300:
                    said, ended = await _read(response.content, REASON_BYTES_MAX)
                else:
                    said, ended = await _read(response.content, self._answer_bytes_max)
                    if not ended:
                        response.close()
                        raise Refusable(f"answered {response.status} with more than {self._answer_bytes_max} bytes")
                if not ended:
                    response.close()
                return Reply(response.status, found, said)
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


async def _read(content: aiohttp.StreamReader, bytes_max: int) -> tuple[bytes, bool]:
    """At most so many bytes, and whether that is all."""
    read = bytearray()
    while chunk := await content.read(bytes_max + 1 - len(read)):
        read += chunk
        if len(read) > bytes_max:
            return bytes(read[:bytes_max]), False
    return bytes(read), True


def tls_context(webhook: Webhook) -> ssl.SSLContext | None:
    """None for http://. ConfigError when the file of certificates cannot be used."""
    if not webhook.url.startswith("https:"):
        return None
    try:
        context = ssl.create_default_context(cafile=webhook.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"handler {webhook.url!r}: {webhook.ca_file} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _told(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno or 0  # asyncio's own words say less: "Connect call failed"
            return os.strerror(number) if number > 0 else str(error.os_error.strerror or error.os_error)
        case aiohttp.ConnectionTimeoutError():
            return "no connection in time"
        case aiohttp.ServerDisconnectedError():
            return "it hung up"
        case _:
            return str(error) or type(error).__name__
