"""Signatures after the Standard Webhooks scheme (https://www.standardwebhooks.com), for both ends. Pure.

    webhook-id          names the message
    webhook-timestamp   seconds since 1970, when it was sent
    webhook-signature   "v1,<base64 of HMAC-SHA256(key, id.timestamp.body)>", one for each key, blanks between

A secret is "whsec_" and the key in base64. Two keys at once are how a key is changed without a gap: the sender signs
with both, the receiver takes either. No error and no repr shows a secret.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence

PREFIX = "whsec_"
KEY_BYTES_MIN, KEY_BYTES_MAX = 24, 64
"""As the scheme has it: shorter ones can be guessed, longer ones add nothing."""

SIGNATURES_MAX = 16
"""Of one header: a stranger may send as many as a header holds."""


def read_key(secret: str) -> bytes:
    """The key of "whsec_...". ValueError says what is wrong with it, without showing it."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"a webhook's secret begins with {PREFIX}")
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {PREFIX} in a webhook's secret is not base64") from None  # it shows nothing
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError(f"a webhook's secret has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, this one has {len(key)}")
    return key


def sign(keys: Iterable[bytes], message_id: str, timestamp_s: int, *body: bytes) -> str:
    """The header `webhook-signature` of a body, which may be in parts."""
    return " ".join("v1," + b64encode(_digest(key, message_id, str(timestamp_s), *body)).decode() for key in keys)


def is_signed(keys: Sequence[bytes], message_id: str, timestamp: str, body: bytes, header: str) -> bool:
    """Is one of the header's signatures made with one of the keys? In constant time for each pair."""
    given = []
    for signature in header.split(maxsplit=SIGNATURES_MAX)[:SIGNATURES_MAX]:
        version, _, text = signature.partition(",")
        if version == "v1":
            given.append(text.encode())
    wanted = [b64encode(_digest(key, message_id, timestamp, body)) for key in keys]
    # All of them, and only then one answer: how long it takes does not tell which one it was.
    return sum(hmac.compare_digest(one, other) for one in given for other in wanted) > 0


def _digest(key: bytes, message_id: str, timestamp: str, *body: bytes) -> bytes:
    made = hmac.new(key, f"{message_id}.{timestamp}.".encode(), "sha256")
    for part in body:
        made.update(part)
    return made.digest()
