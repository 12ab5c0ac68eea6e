"""What is posted beside sessions: a ping, and the note that a session was parked. Signed as sessions are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from truba.ports.parked import ParkedSession
from truba.tls import Contexts
from truba.transports.posting import Broken, NotDelivered, Poster, TooLarge, Unreached, tls_contexts
from truba.webhook import Parked, Ping, Webhook
from truba.webhook.bodies import encode
from truba.webhook.verdict import NotNow, Refused, Reply, judge

TIMEOUT_S = 10.0
"""From connecting to the answer."""

ANSWER_BYTES_MAX = 64 << 10


class ParkedPost:
    """`on_parked = "https://..."`: a hook (`truba.ports.parked`) that posts. ConfigError when `ca_file` is none.

    Every try has the same `webhook-id`, so a receiver can tell a repetition. Raises NotDelivered.
    """

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook
        self._tls = tls_contexts(webhook)

    def __repr__(self) -> str:
        return f"webhook {self._webhook.url}"

    async def __call__(self, parked: ParkedSession) -> None:
        body = Parked(str(parked.id), parked.kind, parked.name, parked.cause.value, parked.detail, parked.attempts)
        message_id = f"{parked.id}@{parked.epoch}-parked"
        await _post(self._webhook, self._tls, message_id, body)


async def ping(webhook: Webhook, kinds: Collection[int]) -> None:
    """Ask whether a handler is there who knows the secret: a signed `{"type": "ping"}`. NotDelivered, ConfigError."""
    await _post(webhook, tls_contexts(webhook), f"ping-{time.time_ns()}", Ping(sorted(kinds)))


async def _post(webhook: Webhook, tls: Contexts | None, message_id: str, body: Ping | Parked) -> None:
    parts = [encode(body, webhook.format)]
    now_s = time.time()
    async with Poster(webhook, tls, connections_max=1, answer_bytes_max=ANSWER_BYTES_MAX) as poster:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await poster.post(parts, poster.headers(message_id, int(now_s), parts))
        except TimeoutError as error:
            raise NotDelivered(f"no answer within {TIMEOUT_S:g} s") from error
        except Unreached as error:
            raise NotDelivered(f"cannot be reached: {error}") from error
        except (Broken, TooLarge) as error:
            raise NotDelivered(str(error)) from error
    if not 200 <= reply.status < 300:
        raise NotDelivered(_refusal(reply, now_s))


def _refusal(reply: Reply, now_s: float) -> str:
    verdict = judge(reply, now_s)
    said = verdict.reason if isinstance(verdict, NotNow | Refused) else f"answered {reply.status}"
    return f"{said}; is the secret right?" if reply.status in (400, 401, 403) else said
