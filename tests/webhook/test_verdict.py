"""What each HTTP answer means for the session."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec
import pytest

from truba.errors import ConfigError
from truba.webhook import Webhook, answer
from truba.webhook.bodies import Answer
from truba.webhook.verdict import Done, Kept, NotNow, Refused, Reply, judge, retry_after_s

SECRET = "whsec_" + "A" * 43 + "="
NOW_S = 1_800_000_000.0  # judge takes the time as an argument: this one stands still


def said(body: bytes, content_type: str = "application/json", status: int = 200, **headers: str) -> object:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return judge(Reply(status, {"content-type": content_type} | names, body), NOW_S)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("body", [b"", b"null", b" \r\n", b'{"delete": true}'])
def test_done(status: int, body: bytes) -> None:
    assert said(body, status=status) == Done()


def test_kept() -> None:
    assert said(b'{"store": 2.5}') == Kept(Answer(store=2.5), 2500)
    assert said(b'{"store": 0, "append": ["YQ==", ""]}') == Kept(Answer([b"a", b""], store=0), 0)
    assert said(b'{"replace": "YQ==", "store": 60}', "application/problem+json; charset=utf-8") == Kept(
        Answer(replace=b"a", store=60), 60_000
    )
    packed = msgspec.msgpack.encode({"append": [b"\x00\xff"], "store": 1})
    for name in ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack"):
        assert said(packed, name) == Kept(Answer([b"\x00\xff"], store=1), 1000)
    assert said(answer(append=[b"a"], store=1)) == Kept(Answer([b"a"], store=1), 1000)
    assert said(answer(replace=b"", store=1)) == Kept(Answer(replace=b"", store=1), 1000)
    assert said(answer(delete=True)) == Done()


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        (b"{}", "application/json", "neither delete nor store"),
        (b'{"delete": false}', "application/json", "neither delete nor store"),
        (b'{"append": ["YQ=="]}', "application/json", "neither delete nor store"),
        (b'{"delete": true, "store": 1}', "application/json", "both delete and store"),
        (b'{"delete": true, "append": ["YQ=="]}', "application/json", "together with delete"),
        (b'{"delete": true, "replace": "YQ=="}', "application/json", "together with delete"),
        (b'{"store": 1, "append": ["YQ=="], "replace": "YQ=="}', "application/json", "both append and replace"),
        (b'{"store": -1}', "application/json", "from 0 to ten years"),
        (b'{"store": 1e12}', "application/json", "from 0 to ten years"),
        (msgspec.msgpack.encode({"store": float("nan")}), "application/msgpack", "from 0 to ten years"),
        (b'{"store": "1"}', "application/json", "cannot be read"),
        (b'{"store": true}', "application/json", "cannot be read"),
        (b'{"append": "YQ==", "store": 1}', "application/json", "cannot be read"),
        (b'{"append": ["Y!"], "store": 1}', "application/json", "cannot be read"),
        (b'{"stor": 1}', "application/json", "cannot be read.*stor"),
        (b"[1]", "application/json", "cannot be read"),
        (b"[" * 100_000, "application/json", "cannot be read"),
        (b'"OK"', "application/json", "cannot be read"),
        (b"\xff\xfe", "application/json", "cannot be read"),
        (b"OK", "text/plain; charset=utf-8", "text/plain; charset=utf-8: OK"),
        (b"<html>\x1b[31m log in", "text/html", r"<html>\?\[31m log in"),
        (b"OK", "", "no content type"),
    ],
)
def test_what_says_nothing_clear_deletes_nothing(body: bytes, content_type: str, why: str) -> None:
    verdict = said(body, content_type)
    assert isinstance(verdict, Refused)
    assert re.search(why, verdict.reason), verdict.reason


def test_an_answer_that_would_be_refused_is_refused_where_it_is_made() -> None:
    for wrong in ({}, {"store": 1, "delete": True}, {"append": [b"a"]}, {"store": -1}):
        with pytest.raises(ValueError, match=r"delete|store"):
            answer(**wrong)  # type: ignore[arg-type]


def test_compressed_though_nobody_asked() -> None:
    assert "gzip" in getattr(said(b"\x1f\x8b", content_encoding="gzip"), "reason", "")
    assert said(b"", content_encoding="identity") == Done()


@pytest.mark.parametrize("status", [400, 401, 404, 410, 500, 502, 504, 100, 600])
def test_failed_with_status_and_the_beginning_of_the_body(status: int) -> None:
    assert said(b"out of\n\n order \x00" + b"x" * 1000, status=status) == Refused(
        f"answered {status}: " + ("out of order ?" + "x" * 120)[:120]
    )
    assert said(b"", status=status, retry_after="5") == Refused(f"answered {status}")


def test_redirects_are_told_without_what_may_be_secret() -> None:
    for status in (301, 302, 303, 307, 308, 304):
        reason = getattr(said(b"", status=status, location="https://ann:pw@else.example/x?token=hush"), "reason", "")
        assert reason.startswith(f"answered {status} (to https://else.example/x): redirects are not followed")
    assert "(to /login)" in getattr(said(b"", status=302, location="/login?token=hush"), "reason", "")
    assert "(to nowhere)" in getattr(said(b"", status=302, location="http://[x"), "reason", "")


@pytest.mark.parametrize("status", [429, 503])
def test_not_now(status: int) -> None:
    assert said(b"full", status=status) == NotNow(None, f"answered {status}: full")
    assert said(b"", status=status, retry_after="120") == NotNow(120, f"answered {status}")
    date = format_datetime(datetime.fromtimestamp(NOW_S + 90, UTC), usegmt=True)
    assert said(b"", status=status, retry_after=date) == NotNow(90, f"answered {status}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 1), ("1", 1), (" 7 ", 7), ("86401", 86_400), ("9" * 400, 86_400), ("-5", None), ("1.5", None), ("", None),
        ("soon", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 1), ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Fri, 15 Jan 2027 08:01:00 -0000", 60), ("Mon, 99 Foo 2027 99:99:99 GMT", None), ("\u0665", None),
    ],
)  # fmt: skip
def test_retry_after(text: str, expected: float | None) -> None:
    assert retry_after_s(text, NOW_S) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/", "another scheme"), ("https:///path", "no host"), ("https://host:0/", "no host"),
        ("https://host:x/", "no address"), ("https://ann:pw@host/", "no user"), ("https://host/?a=x", "no user, query"),
        ("https://host/#a", "fragment"), ("https://host/a b", "blanks"), ("https://host/\u00e9", "ASCII"),
        ("http://host/", "plain text"), ("http://10.0.0.1/", "plain text"), ("https://host/\r\nX: y", "blanks"),
    ],
)  # fmt: skip
def test_urls_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Webhook(url, SECRET)


@pytest.mark.parametrize(
    "url", ["https://host/a/b%20c", "http://127.0.0.1:80/", "http://[::1]:8080/x", "http://localhost"]
)
def test_urls_that_are_taken(url: str) -> None:
    assert Webhook(url, SECRET).url == url
    assert Webhook("http://host/", SECRET, insecure=True)


def test_secrets_and_format() -> None:
    for secrets in ([], [SECRET] * 3, ["hush"], "hush"):
        with pytest.raises(ConfigError) as caught:
            Webhook("https://host/", secrets)
        assert "hush" not in str(caught.value)
    with pytest.raises(ConfigError, match="json"):
        Webhook("https://host/", SECRET, "xml")  # type: ignore[arg-type]
