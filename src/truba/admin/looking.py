"""Reads. Whatever may be long is done in slices, and the loop serves others between two of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from truba.admin import documents
from truba.admin.pulse import Pulse
from truba.admin.showing import Showing
from truba.admin.subject import Settings, Subject
from truba.errors import BadRequest, NoPerm, UnknownKind
from truba.node.node import Node
from truba.ports.store import Head
from truba.types import Cause, Index, Phase

SLICE = 256
"""Sessions looked at in one turn of the loop: about a millisecond."""

STEPS_MAX = 65_536
"""Sessions looked at for one answer, about a fifth of a second of work; the cursor says where to go on."""

PAGE_MAX = 1000
PAGE = 100

SECONDS_MAX = 10**12


def say(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


def parse_id(text: str) -> Index:
    """BadRequest when it is none."""
    try:
        return Index.parse(text)
    except ValueError as error:
        raise BadRequest(f"{error}; nothing was changed") from error


def find_kind(node: Node, text: str) -> int:
    """By number or name. UnknownKind."""
    number = int(text) if text.isdecimal() and len(text) <= 10 else node.kind_numbers.get(text)
    if number is None or number not in node.kinds:
        raise UnknownKind(f"no kind {text[:64]!r} is configured; nothing was changed")
    return number


async def collect(
    node: Node, after: Index | None, limit: int, wanted: Callable[[Head], bool]
) -> tuple[list[Head], Index | None]:
    """Up to `limit` sessions that are wanted, and the id to go on after; None: there are no more."""
    found: list[Head] = []
    for _ in range(STEPS_MAX // SLICE):
        heads, after = node.operators.page(after, limit - len(found), wanted, SLICE)
        found += heads
        if after is None or len(found) == limit:
            break
        await asyncio.sleep(0)
    return found, after


def router(subject: Subject, settings: Settings, pulse: Pulse, metrics: CollectorRegistry) -> APIRouter:
    routes = APIRouter(prefix="/v1")
    showing = Showing()

    @routes.get("/health", response_model=documents.Alive, tags=["node"])
    async def health() -> Response:
        """The process lives: its loop turns. Says nothing of whether it takes sessions."""
        return say({"alive": True})

    @routes.get(
        "/readiness", response_model=documents.Ready, responses={503: {"model": documents.Ready}}, tags=["node"]
    )
    async def readiness() -> Response:
        """200: this node takes sessions itself. 503: it is starting or stopping, or another node leads."""
        ready = subject.ready
        document = {
            "ready": ready,
            "role": subject.role(),
            "leader": subject.leader(),
            "trouble": subject.trouble(),
        }
        return say(document, 200 if ready else 503)

    @routes.get(
        "/serving", response_model=documents.Serving, responses={503: {"model": documents.Serving}}, tags=["node"]
    )
    async def serving() -> Response:
        """200: clients of this node are served, by itself or by the node that leads, to which it passes them on. 503:
        it is starting, catching up or stopping, or no node leads."""
        serving = subject.serving
        document = {
            "serving": serving,
            "role": subject.role(),
            "leader": subject.leader(),
            "trouble": subject.trouble(),
        }
        return say(document, 200 if serving else 503)

    @routes.get("/metrics", tags=["node"], response_class=Response)
    async def scrape(request: Request) -> Response:
        """For Prometheus, in its text format or as OpenMetrics. docs/metrics.md tells what each one means."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics), headers={"Content-Type": content_type})

    @routes.get("/overview", response_model=documents.Overview, tags=["node"])
    async def overview() -> Response:
        """The node, and each kind with its counts, rates and handler."""
        return say(documents.overview(subject, subject.node(), pulse))

    @routes.get("/configuration", tags=["node"])
    async def configuration() -> Response:
        """As it was understood, defaults included; secrets are left out."""
        return say(settings.configuration())

    @routes.get("/kinds/{kind}", response_model=documents.KindDocument, tags=["kinds"])
    async def one_kind(kind: str) -> Response:
        """One kind, by number or name."""
        node = subject.node()
        return say(documents.kind(node, find_kind(node, kind), pulse))

    @routes.get("/sessions", response_model=documents.Sessions, tags=["sessions"])
    async def sessions(
        kind: Annotated[str | None, Query(description="number or name")] = None,
        phase: Phase | None = None,
        cause: Cause | None = None,
        min_age_s: Annotated[float, Query(ge=0, le=SECONDS_MAX, description="since it was opened")] = 0,
        max_age_s: Annotated[float | None, Query(ge=0, le=SECONDS_MAX)] = None,
        due: Annotated[bool | None, Query(description="true: stored and due; false: stored for later")] = None,
        after: Annotated[str | None, Query(description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE,
    ) -> Response:
        """Sessions in order of id. Pages are bounded in work, not only in length: go on while `next` is not null.

        What changes between two pages may be missed or shown as it was, but a session that is there all the time and
        fits all the time is shown exactly once.
        """
        node = subject.node()
        number = None if kind is None else find_kind(node, kind)
        now_ms = node.clock.now_ms()
        newest_ms = now_ms - min_age_s * 1000
        oldest_ms = now_ms - max_age_s * 1000 if max_age_s is not None else -(2**63)

        def wanted(head: Head) -> bool:
            return (
                (number is None or head.kind == number)
                and (phase is None or head.phase is phase)
                and (cause is None or (head.cause is cause and head.phase is not Phase.ACTIVE))
                and oldest_ms <= head.created_ms <= newest_ms
                and (due is None or (head.phase is Phase.STORED and (head.due_ms <= now_ms) == due))
            )

        heads, rest = await collect(node, None if after is None else parse_id(after), limit, wanted)
        return say(
            {
                "sessions": [documents.session(node, head) for head in heads],
                "next": None if rest is None else str(rest),
            }
        )

    @routes.get("/sessions/{session_id}", response_model=documents.WholeSession, tags=["sessions"])
    async def one_session(
        session_id: str,
        contents: Annotated[
            bool, Query(description="records in base64, if the configuration allows it and their kind has no codec")
        ] = False,
        first_record: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """One session: why it is where it is, its history, the sizes of its records, and what its kind's codec allows
        to show of them."""
        node = subject.node()
        if contents and not settings.show_records:
            raise NoPerm("contents of records are not shown: [admin] show_records is false; nothing was changed")
        head = node.look_up(parse_id(session_id))
        codec = node.kinds[head.kind].codec
        all_records = node.machine.records(head.number)
        numbers, after = documents.page(all_records, first_record, sizes_only=codec is None and not contents)
        document = documents.whole_session(node, head)  # before others have their turn: all of it of one moment
        some = [all_records[number] for number in numbers]
        shown: Sequence[str | None] = [None] * len(some)
        if codec is not None:
            shown = await showing.texts(node.kinds[head.kind], codec, some)
        told = [
            documents.record(number, data, text, contents=contents and codec is None)
            for number, data, text in zip(numbers, some, shown, strict=True)
        ]
        return say(document | {"record_list": told, "next_record": after})

    @routes.get("/sessions/{session_id}/why", response_model=list[str], tags=["sessions"])
    async def why(session_id: str) -> Response:
        """In plain words: where it stands, what brought it there, what happens next and when."""
        return say(subject.node().operators.why(parse_id(session_id)))

    return routes
