"""Signatures: as the scheme's own example has them, with two keys, and never a secret in an error."""

from __future__ import annotations

import base64
import time

import msgspec
import pytest

from truba.webhook import NotGenuine, Ping, Unfinished, Webhook, verify
from truba.webhook.bodies import PART_BYTES, encode, encode_parts
from truba.webhook.signature import is_signed, read_key, sign

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
SESSION = Unfinished("3-117", 2, 7, "transfer", 1, "lost", 60_000, [b"a\x00\xff", b""])


def posted(
    body: bytes, *secrets: str, at_s: float, message_id: str = "3-117@2", content_type: str = "application/json"
) -> dict[str, str]:
    return {
        "Content-Type": content_type,
        "Webhook-Id": message_id,
        "Webhook-Timestamp": str(int(at_s)),
        "Webhook-Signature": sign([read_key(secret) for secret in secrets], message_id, int(at_s), body),
    }


def test_the_example_of_the_scheme() -> None:
    """The vector that the scheme's libraries test themselves with."""
    key = read_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert is_signed([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body, made)


@pytest.mark.parametrize("format_", ["json", "msgpack"])
def test_what_was_sent_is_what_is_verified(format_: str) -> None:
    body = encode(SESSION, format_)  # type: ignore[arg-type]
    headers = posted(body, NEW, at_s=time.time(), content_type=f"application/{format_}")
    assert verify(headers, body, NEW) == SESSION


@pytest.mark.parametrize("format_", ["json", "msgpack"])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_parts_make_the_whole(format_: str, count: int) -> None:
    body = msgspec.structs.replace(SESSION, records=[bytes([at % 256]) * (at % 40) for at in range(count)])
    parts = encode_parts(body, format_)  # type: ignore[arg-type]
    assert b"".join(parts) == encode(body, format_)  # type: ignore[arg-type]
    assert max(map(len, parts)) < 2 * PART_BYTES
    keys = [b"k" * 32]
    assert sign(keys, "1-2@1", 5, *parts) == sign(keys, "1-2@1", 5, b"".join(parts))


def test_two_keys_at_either_end() -> None:
    body = encode(Ping([7]), "json")
    now_s = time.time()
    both = posted(body, NEW, OLD, at_s=now_s)
    assert both["Webhook-Signature"].count("v1,") == 2
    for secrets in (OLD, NEW, [OLD, NEW]):
        assert verify(both, body, secrets) == Ping([7])
    assert verify(posted(body, OLD, at_s=now_s), body, [NEW, OLD]) == Ping([7])
    with pytest.raises(NotGenuine, match="no signature of these secrets"):
        verify(posted(body, OLD, at_s=now_s), body, NEW)


@pytest.mark.parametrize("change", ["body", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_whatever_is_changed_is_noticed(change: str) -> None:
    body = encode(SESSION, "json")
    headers = posted(body, NEW, at_s=time.time())
    if change == "body":
        body = body.replace(b"transfer", b"TRANSFER")
    elif change == "Webhook-Signature":
        headers[change] = "v1a,x v2," + headers[change][3:] + " v1, v1,é v1," + "A" * 44
    else:
        headers[change] = headers[change][:-1] + "0" if headers[change][-1] != "0" else headers[change][:-1] + "1"
    with pytest.raises(NotGenuine, match="no signature of these secrets"):
        verify(headers, body, NEW)


@pytest.mark.parametrize("name", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = posted(b"{}", NEW, at_s=time.time())
    del headers[name]
    with pytest.raises(NotGenuine, match=name.lower()):
        verify(headers, b"{}", NEW)


def test_too_old_and_too_young() -> None:
    body = encode(Ping([]), "json")
    now_s = 1_800_000_000.0
    for at_s, refused in [(-301, "301 s ago"), (-300, ""), (300, ""), (301, "301 s from now")]:
        headers = posted(body, NEW, at_s=now_s + at_s)
        if refused:
            with pytest.raises(NotGenuine, match=refused):
                verify(headers, body, NEW, now_s=now_s)
        else:
            assert verify(headers, body, NEW, now_s=now_s)
    assert verify(posted(body, NEW, at_s=now_s - 900), body, NEW, now_s=now_s, tolerance_s=1000)


@pytest.mark.parametrize("stamp", ["", "soon", "-5", "1e3", "\u0661\u0662"])
def test_a_timestamp_that_is_none(stamp: str) -> None:
    headers = posted(b"{}", NEW, at_s=1)
    headers["Webhook-Timestamp"] = stamp
    headers["Webhook-Signature"] = "v1," + base64.b64encode(b"x" * 32).decode()
    with pytest.raises(NotGenuine):
        verify(headers, b"{}", NEW)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b'{"type": "else"}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"{}", "text/html"),
    ],
)
def test_signed_nonsense(body: bytes, content_type: str) -> None:
    with pytest.raises(NotGenuine, match="signed, but not"):
        verify(posted(body, NEW, at_s=time.time(), content_type=content_type), body, NEW)


def test_fields_of_a_newer_pipe_are_passed_over() -> None:
    body = encode(Ping([7]), "json").replace(b"}", b',"more":{"a":[1]}}')
    assert verify(posted(body, NEW, at_s=time.time()), body, NEW) == Ping([7])


@pytest.mark.parametrize(
    "secret", ["hush", "whsec_", "whsec_hush!hush", "whsec_aHVzaA==", "whsec_" + base64.b64encode(b"h" * 65).decode()]
)
def test_a_bad_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="a webhook's secret") as caught:
        read_key(secret)
    assert secret.removeprefix("whsec_")[:6] not in str(caught.value) or len(secret) < 10
    assert caught.value.__cause__ is None


def test_a_webhook_shows_no_secret() -> None:
    webhook = Webhook("https://host/path", [NEW, OLD])
    assert webhook.keys == (b"n" * 32, b"o" * 32)
    assert "whsec" not in repr(webhook)
    assert webhook == Webhook("https://host/path", (NEW, OLD))
    assert hash(webhook) == hash(Webhook("https://host/path", (NEW, OLD)))
