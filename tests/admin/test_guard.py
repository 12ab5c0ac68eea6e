"""Who may do what: every route, every sort of token, and what browsers may be made to send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.admin.support import Place, place
from truba.admin.guard import BODY_BYTES_MAX, HEADERS, OPEN
from truba.admin.problems import STATUS
from truba.admin.subject import Right
from truba.errors import OPERATION_ERRORS
from truba.rejections import LINES_MAX

TOKENS: dict[str, Right] = {"reader": "read", "ann": "operate"}


def shown(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}'s token"}


async def routes(here: Place) -> list[tuple[str, str]]:
    """Every route that its own document names, and the page."""
    document = (await here.client.get("/openapi.json")).json()
    filled = [
        (method.upper(), path.format(kind="7", session_id="1-9999", job_id="none"))
        for path, methods in document["paths"].items()
        for method in methods
    ]
    return [*filled, ("GET", "/"), ("GET", "/page/app.js"), ("GET", "/openapi.json"), ("GET", "/nothing")]


async def test_the_matrix_of_routes_and_tokens(tmp_path: Path) -> None:
    async with place(tmp_path, tokens=TOKENS) as here:
        for method, path in await routes(here):
            free = path in OPEN or path.startswith("/page/")
            reads = method == "GET"
            body = {"json": {"in_s": 1}} if method == "PUT" else {}
            expected = {
                "": not free and 401,
                "wrong": not free and 401,
                "reader": not reads and 403,
                "ann": False,
            }
            for name, refused in expected.items():
                headers = shown(name) if name else {}
                answer = await here.client.request(method, path, headers=headers, **body)
                said = (method, path, name, answer.status_code, answer.text)
                if refused:
                    assert answer.status_code == refused, said
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert "nothing was changed" in answer.json()["detail"]
                else:
                    assert answer.status_code not in (401, 403, 405, 500), said
                assert HEADERS.items() <= {k: answer.headers[k] for k in HEADERS}.items(), said
        assert all(line["who"] == "ann" for line in here.audit())


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic ann's token",
        "ann's token",
        "Bearer ann's toke",
        "Bearer ann's token x",
        "Bearer \xff",
    ],
)
async def test_what_is_no_token(tmp_path: Path, authorization: str) -> None:
    async with place(tmp_path, tokens=TOKENS) as here:
        headers = [(b"authorization", authorization.encode("latin-1"))]
        answer = await here.client.get("/v1/overview", headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "ann" not in answer.text


async def test_guesses_fill_no_disk_with_log_and_all_are_counted(tmp_path: Path) -> None:
    async with place(tmp_path, tokens=TOKENS) as here:
        for number in range(50):
            answer = await here.client.get(f"/v1/{'x' * 500}/{number}", headers=shown("wrong"))
            assert answer.status_code == 401
        assert [cause for cause, _ in here.told] == ["wrong token"] * LINES_MAX
        assert all(len(str(fields)) < 200 for _, fields in here.told)
        metrics = (await here.client.get("/v1/metrics", headers=shown("reader"))).text
        assert 'truba_rejections_total{cause="wrong token",door="operators"} 50.0' in metrics


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://127.0.0.1:7480"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:7481"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Host": "evil.example"}, False),
        ({"Host": "localhost:7480"}, True),
        ({"Host": "[::1]:7480"}, True),
        ({"Host": "127.0.0.1.evil.example"}, False),
        ({"Host": ""}, False),
    ],
)
async def test_a_browser_on_this_machine_cannot_be_made_to_change_anything(
    tmp_path: Path, headers: dict[str, str], allowed: bool
) -> None:
    async with place(tmp_path) as here:
        answer = await here.client.post("/v1/kinds/7/pause", headers=headers)
        assert answer.status_code == (200 if allowed else 403)
        assert here.node.dispatcher.lanes[7].paused is allowed


async def test_a_name_that_leads_here_by_dns_reads_nothing_either(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        assert (await here.client.get("/v1/overview", headers={"Host": "evil.example"})).status_code == 403
    async with place(tmp_path, tokens=TOKENS) as here:  # the token is what it does not have
        answer = await here.client.get("/v1/overview", headers={"Host": "truba.example"} | shown("reader"))
        assert answer.status_code == 200


@pytest.mark.parametrize("told", [True, False])
async def test_large_bodies_are_refused_whatever_they_say_of_themselves(tmp_path: Path, told: bool) -> None:
    async with place(tmp_path) as here:
        index = here.stored()
        body = b'{"in_s": 1' + b" " * BODY_BYTES_MAX + b"}"

        async def pieces() -> Any:
            for at in range(0, len(body), 1000):
                yield body[at : at + 1000]

        content = body if told else pieces()
        headers = {"Content-Type": "application/json"}
        answer = await here.client.put(f"/v1/sessions/{index}/due", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "TOOBIG")
        assert f"at most {BODY_BYTES_MAX} bytes; nothing was changed" in answer.json()["detail"]
        assert here.node.look_up(index).due_ms > here.node.clock.now_ms() + 1_000_000
        assert not here.audit_path.exists()


def test_every_error_of_an_operation_has_its_status() -> None:
    assert set(STATUS) == set(OPERATION_ERRORS.values())
