"""What an HTTP answer says about the session that was posted. Pure: status, headers and body in, a verdict out.

2xx without a body, or with one that says so     Done, Kept
429, 503                                         NotNow: the handler cannot work at all, so no attempt is used up
everything else                                  Refused, with the reason
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from truba.webhook.bodies import Answer, excerpt, read_answer

NOT_NOW = frozenset({429, 503})

RETRY_AFTER_S_MIN = 1.0
"""A handler that says "0 seconds" again and again would be asked in a loop."""
RETRY_AFTER_S_MAX = 86_400.0
"""Whoever is away for longer is looked for once a day all the same."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, read up to its bound. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """Delete it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Write the records, if any, and store it."""

    answer: Answer
    delay_ms: int


@dataclass(frozen=True, slots=True)
class NotNow:
    """Hand it over later; `delay_s` None: the kind's backoff chooses when."""

    delay_s: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The attempt has failed."""

    reason: str


Verdict = Done | Kept | NotNow | Refused


def judge(reply: Reply, now_s: float) -> Verdict:
    """`now_s`: wall clock, against which a date in Retry-After is taken."""
    if 200 <= reply.status < 300:
        return _judge_body(reply)
    reason = f"answered {reply.status}"
    if 300 <= reply.status < 400:
        where = shown_address(reply.headers.get("location", ""))
        return Refused(f"{reason} (to {where}): redirects are not followed; write the final address as the route")
    if said := excerpt(reply.body):
        reason += f": {said}"
    if reply.status in NOT_NOW:
        return NotNow(retry_after_s(reply.headers.get("retry-after", ""), now_s), reason)
    return Refused(reason)


def _judge_body(reply: Reply) -> Verdict:
    if (coding := reply.headers.get("content-encoding", "identity").lower()) != "identity":
        return Refused(f"answered {reply.status} with a body in {excerpt(coding.encode())!r}, which was not asked for")
    try:
        said = read_answer(reply.headers.get("content-type", ""), reply.body)
    except ValueError as error:
        return Refused(f"answered {reply.status} with {error}")
    return Done() if said.store is None else Kept(said, math.ceil(said.store * 1000))


def retry_after_s(text: str, now_s: float) -> float | None:
    """Seconds to wait for `Retry-After: 120`, or for a date. None when it says neither."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        delay_s = float(text[:12])
    else:
        try:
            when = parsedate_to_datetime(text)
            delay_s = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(delay_s, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)


def shown_address(url: str) -> str:
    """An address for a log: without user and query, which may hold somebody's secrets."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "nowhere"
    name = parts.hostname or ""
    host = f"{parts.scheme}://{f'[{name}]' if ':' in name else name}{port}" if name else ""
    return excerpt(f"{host}{parts.path}".encode()) or "nowhere"
