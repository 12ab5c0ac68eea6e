"""`verify`: for whoever is posted to. Needs the headers and the raw body, no framework, and not the pipe."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from truba.errors import TrubaError
from truba.webhook.bodies import Body, decode
from truba.webhook.signature import is_signed, read_key

TOLERANCE_S = 300.0
"""How far the sender's clock may be off, and how long a POST that somebody overheard can be sent again."""


class NotGenuine(TrubaError):
    """It is not proven that the pipe sent this, and sent it just now. Answer 401, and do nothing."""


class Headers(Protocol):
    """A dictionary, or what frameworks have for one."""

    def items(self) -> Iterable[tuple[str, str]]: ...


def verify(
    headers: Headers,
    body: bytes,
    secrets: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now_s: float | None = None,
) -> Body:
    """What was posted: `Unfinished`, `Parked` or `Ping`.

    Whether it came before is not looked at: within `tolerance_s` whoever overheard it can send it again. A step that is
    done once for each session, which it must be anyhow, is safe from that; docs/webhooks.md tells more.

    `body` is what came over the wire, byte for byte. `secrets`: one `whsec_...`, or two while they are changed.
    `now_s`: seconds since 1970, instead of the clock's. Raises NotGenuine; ValueError for a secret that is none.
    """
    keys = [read_key(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    found = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp = found["webhook-id"], found["webhook-timestamp"]
        signature = found["webhook-signature"]
    except KeyError as missing:
        raise NotGenuine(f"there is no header {missing.args[0]}") from None
    if not is_signed(keys, message_id, timestamp, body, signature):
        raise NotGenuine("no signature of these secrets")
    # Signed, so the sender's own words; judged last, so that a stranger learns nothing of our clock.
    age_s = (time.time() if now_s is None else now_s) - _seconds(timestamp)
    if abs(age_s) > tolerance_s:
        when = "ago" if age_s > 0 else "from now, by this machine's clock"
        raise NotGenuine(f"sent {abs(age_s):.0f} s {when}; at most {tolerance_s:g} s are taken")
    try:
        return decode(found.get("content-type", ""), body)
    except ValueError as error:
        raise NotGenuine(f"signed, but not what a pipe of this version sends: {error}") from error


def _seconds(timestamp: str) -> float:
    return float(timestamp) if timestamp.isascii() and timestamp.isdecimal() else math.inf
