"""Errors as `application/problem+json` (RFC 9457): what happened, whether anything was changed, may it be repeated."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from truba.admin.subject import Subject
from truba.errors import (
    BadRequest,
    Busy,
    Closed,
    DataError,
    Fenced,
    NoAuth,
    NoPerm,
    NoSession,
    NotLeader,
    OperationError,
    TooBig,
    Unavailable,
    UnknownKind,
    UnknownOutcome,
)

log = structlog.get_logger("truba.admin")

STATUS: dict[type[OperationError], int] = {
    BadRequest: 400,
    NoAuth: 401,
    NoPerm: 403,
    NoSession: 404,
    UnknownKind: 404,
    Busy: 409,
    Fenced: 409,
    Closed: 409,
    TooBig: 413,
    UnknownOutcome: 500,
    NotLeader: 503,
    Unavailable: 503,
}
"""Every error of an operation has one; a test looks that none is missing."""


def problem(status: int, title: str, detail: str, **more: Any) -> Response:
    """`title` is the same for every problem of its sort; `detail` is for this one."""
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    headers = {"WWW-Authenticate": 'Bearer realm="truba"'} if status == 401 else None
    return Response(msgspec.json.encode(document), status, headers, "application/problem+json")


def of_operation(error: OperationError) -> Response:
    return problem(
        STATUS[type(error)],
        type(error).__name__,
        str(error),
        code=error.code,
        happened=error.happened,
        again=error.again,
    )


def install(app: FastAPI, subject: Subject) -> None:
    """Have every error of `app` told in this form."""

    @app.exception_handler(OperationError)
    async def operation(_: Request, error: OperationError) -> Response:
        return of_operation(error)

    @app.exception_handler(DataError)
    async def damaged(_: Request, error: DataError) -> Response:
        node = subject.current()
        if node is not None:
            node.give_up(error)  # as whenever damage is found: nothing of it may be served as good
        return problem(503, "DataError", f"the pipe stops: {error}", happened="unknown", again="never")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return problem(400, "BadRequest", f"{wrong}; nothing was changed", code="ERR", happened="no", again="never")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, OperationError):  # met while FastAPI read the body, and told as its own
            return of_operation(error.__cause__)
        return problem(error.status_code, str(error.detail), f"{error.detail}; nothing was changed")

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        log.error("a request failed", path=request.url.path, error=repr(error), exc_info=error)
        return problem(500, "Defect", f"{type(error).__name__}; see the log; whether anything was changed is unknown")
