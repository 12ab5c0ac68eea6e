"""OpenTelemetry: one trace from a session's New to its last repeat, however many processes and days lie between.

    pipe = otel.traced(pipe)                       spans for new, append, replace, delete, store, fail; New carries on
                                                   the trace that it is part of
    @otel.traced_handler                           a span for each repeat, in the trace of the session's client
    async def finish(repeat): ...

An extra, `truba[otel]`. Nothing here is imported, and nothing costs anything, unless you wrap a pipe or a handler. The
context is kept with the session, in the log, so it outlives both processes. Spans tell ids, kinds, counts and sizes,
never contents. Idea and names: the messaging conventions of OpenTelemetry, W3C Trace Context.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from truba import sync
from truba.session import Pipe, RepeatData, Session
from truba.types import Index

CARRIED_BYTES_MAX = 512
"""What a pipe keeps of a context. One that is larger goes without its tracestate, which is for vendors."""

H = TypeVar("H", bound=Callable[..., Any])

_propagator = TraceContextTextMapPropagator()


def carried() -> bytes:
    """The current context as `Pipe.new(trace=...)` takes it; empty when there is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    parent = carrier.get("traceparent", "").encode("ascii", "ignore")
    state = carrier.get("tracestate", "").encode("ascii", "ignore")
    whole = b"%b\n%b" % (parent, state) if state else parent
    return whole if len(whole) <= CARRIED_BYTES_MAX else parent


def context_of(carried: bytes) -> Context:
    """The context that `carried` gave; an empty one for whatever else somebody may have sent."""
    parent, _, state = carried.decode("ascii", "replace").partition("\n")
    return _propagator.extract({"traceparent": parent, "tracestate": state}, context=Context())


class TracedSession:
    """A `truba.Session` whose operations are spans."""

    def __init__(self, session: Session, tracer: Tracer) -> None:
        self._session = session
        self._tracer = tracer

    @property
    def id(self) -> Index:
        return self._session.id

    @property
    def kind(self) -> int:
        return self._session.kind

    @property
    def epoch(self) -> int:
        return self._session.epoch

    @property
    def ended(self) -> bool:
        return self._session.ended

    async def append(self, *records: Any) -> None:
        await self._spanned("append", self._session.append(*records), records)

    async def replace(self, record: Any) -> None:
        await self._spanned("replace", self._session.replace(record), (record,))

    async def delete(self) -> None:
        await self._spanned("delete", self._session.delete())

    async def store(self, seconds: float) -> None:
        await self._spanned("store", self._session.store(seconds))

    async def fail(self, reason: str = "") -> None:
        await self._spanned("fail", self._session.fail(reason))

    async def touch(self) -> None:
        await self._session.touch()  # nothing is logged, and a span for each sign of life would tell nothing

    async def _spanned(self, verb: str, doing: Awaitable[None], records: Sequence[Any] = ()) -> None:
        with self._tracer.start_as_current_span(
            f"truba {verb}", kind=SpanKind.CLIENT, attributes=_attributes(self._session) | _sizes(records)
        ):
            await doing


class TracedPipe:
    """A `truba.Pipe` whose sessions carry the trace that they were opened in."""

    def __init__(self, pipe: Pipe, tracer: Tracer) -> None:
        self._pipe = pipe
        self._tracer = tracer

    async def new(
        self, kind: int, *records: Any, tag: int | None = None, trace: bytes = b"", **options: Any
    ) -> TracedSession:
        """`trace` overrules the current context; `options`, such as `codec`, are the pipe's own."""
        with self._opening(kind, records) as span:
            session = await self._pipe.new(kind, *records, tag=tag, trace=trace or carried(), **options)
            span.set_attributes(_attributes(session))
        return TracedSession(session, self._tracer)

    @asynccontextmanager
    async def session(
        self, kind: int, *records: Any, trace: bytes = b"", **options: Any
    ) -> AsyncIterator[TracedSession]:
        """As the pipe's own: deleted on success, given back by the kind's policy on an exception. One span for all."""
        with self._opening(kind, records) as span:
            async with self._pipe.session(kind, *records, trace=trace or carried(), **options) as session:
                span.set_attributes(_attributes(session))
                yield TracedSession(session, self._tracer)

    async def close(self) -> None:
        await self._pipe.close()

    def _opening(self, kind: int, records: Sequence[Any]) -> Any:
        attributes: dict[str, str | int] = {"truba.kind": kind, **_sizes(records)}
        return self._tracer.start_as_current_span("truba new", kind=SpanKind.PRODUCER, attributes=attributes)


def traced(pipe: Pipe, tracer: Tracer | None = None) -> TracedPipe:
    """`pipe`, embedded or remote, with spans. `tracer`: the one of the global provider unless another is given."""
    return TracedPipe(pipe, tracer or _default_tracer())


def traced_handler(handler: H, tracer: Tracer | None = None) -> H:
    """A handler with a span for each repeat, child of the span in which its session was opened.

    A coroutine function's session has spans for its operations too; a plain function runs within its span, in its
    own thread.
    """

    def begin(repeat: RepeatData | sync.RepeatData) -> Any:
        attributes = _attributes(repeat.session) | {
            "truba.attempt": repeat.attempt,
            "truba.cause": repeat.cause.value,
        }
        return (tracer or _default_tracer()).start_as_current_span(
            "truba repeat",
            context=context_of(repeat.trace),
            kind=SpanKind.CONSUMER,
            attributes=attributes | _sizes(repeat.records),
        )

    call = handler if inspect.isroutine(handler) else type(handler).__call__
    if inspect.iscoroutinefunction(call):

        @wraps(handler)
        async def spanned(repeat: RepeatData) -> None:
            with begin(repeat):
                wrapped = TracedSession(repeat.session, tracer or _default_tracer())
                await handler(replace(repeat, session=wrapped))

        return cast(H, spanned)

    @wraps(handler)
    def spanned_plain(repeat: sync.RepeatData) -> None:
        with begin(repeat):
            handler(repeat)

    return cast(H, spanned_plain)


def _default_tracer() -> Tracer:
    return trace.get_tracer("truba")


def _attributes(session: Session | sync.Session) -> dict[str, str | int]:
    return {"truba.session": str(session.id), "truba.kind": session.kind, "truba.epoch": session.epoch}


def _sizes(records: Sequence[Any]) -> dict[str, str | int]:
    """Their count, and their bytes unless a codec has still to make them."""
    if not records:
        return {}
    count: dict[str, str | int] = {"truba.records": len(records)}
    if all(isinstance(record, bytes) for record in records):
        count["truba.bytes"] = sum(map(len, records))
    return count


__all__ = ["TracedPipe", "TracedSession", "carried", "context_of", "traced", "traced_handler"]
