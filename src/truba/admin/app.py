"""The admin address as an ASGI application."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from truba.admin import looking, problems, steering
from truba.admin.collector import registry
from truba.admin.guard import Guard
from truba.admin.jobs import Jobs
from truba.admin.pulse import Pulse
from truba.admin.subject import Settings, Subject
from truba.ports.audit import AuditLog
from truba.rejections import Rejections

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def make_app(
    subject: Subject, settings: Settings, pulse: Pulse, audit: AuditLog, jobs: Jobs, rejections: Rejections
) -> ASGIApp:
    """Guarded. The document of its interface is at /openapi.json."""
    app = FastAPI(
        title="truba",
        version=subject.version,
        description="Sessions of a pipe, for operators. Errors are problem+json; times are milliseconds since 1970.",
        docs_url=None,  # it would be fetched from somebody else's server
        redoc_url=None,
    )
    problems.install(app, subject)
    app.include_router(looking.router(subject, settings, pulse, registry(subject, pulse, rejections)))
    app.include_router(steering.router(subject, settings, audit, jobs))
    app.include_router(_page())
    return Guard(app, settings.tokens, rejections, frozenset({settings.listen.host.lower()}))


def _page() -> APIRouter:
    """The web page's files, read once: they are small, and part of the package."""
    routes = APIRouter(include_in_schema=False)
    kept = {
        file.name: (file.read_bytes(), TYPES[file.name.rpartition(".")[2]])
        for file in files("truba.admin").joinpath("page").iterdir()
        if file.name.rpartition(".")[2] in TYPES
    }

    @routes.get("/")
    async def index() -> Response:
        return page("index.html")

    @routes.get("/page/{name}")
    async def page_file(name: str) -> Response:
        return page(name)

    def page(name: str) -> Response:
        if name not in kept:
            raise HTTPException(404, "there is no such file")
        content, media_type = kept[name]
        return Response(content, media_type=media_type)

    return routes
