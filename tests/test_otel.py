"""Tracing: from New to the last repeat in one trace, over restarts and over the wire."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

import truba
from tests.client.inprocess import until
from tests.service.process import Servers, kind, servers
from truba import otel
from truba.kinds import Backoff
from truba.records import Json


class Spans:
    """What was traced."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def traces(self) -> set[int]:
        return {span.context.trace_id for span in self._exporter.get_finished_spans() if span.context}


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Servers]:
    yield from servers(tmp_path)


def transfer(handler: truba.Handler) -> truba.Kind:
    return truba.Kind(7, "transfer", handler, recovery_delay_s=0, jitter_s=0, backoff=Backoff(0, 1, 0))


async def test_one_trace_from_new_over_a_restart_to_each_repeat(tmp_path: Path, spans: Spans) -> None:
    finished = asyncio.Event()

    async def finish(repeat: truba.RepeatData) -> None:
        if repeat.attempt == 1:
            raise RuntimeError("once more")
        await repeat.session.append(b"undone")
        finished.set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # the handler's failure is told there
    handler = otel.traced_handler(finish, spans.tracer)
    async with truba.open(tmp_path / "data", kinds=[transfer(handler)]) as plain:
        pipe = otel.traced(plain, spans.tracer)
        with spans.tracer.start_as_current_span("the job"):
            session = await pipe.new(7, b"secret contents")
        await session.append(b"a", b"bc")
        await session.replace(b"d")
        await session.store(0.3)
    async with truba.open(tmp_path / "data", kinds=[transfer(handler)]):
        await asyncio.wait_for(finished.wait(), 20)
        await until(lambda: len(spans.named("truba repeat")) == 2)
    (job,), (new,) = spans.named("the job"), spans.named("truba new")
    first, second = spans.named("truba repeat")
    assert new.context
    assert new.parent == job.context
    assert new.kind is SpanKind.PRODUCER
    for repeat in (first, second):
        assert repeat.parent
        assert (repeat.parent.span_id, repeat.parent.trace_id) == (new.context.span_id, new.context.trace_id)
        assert repeat.parent.is_remote
        assert repeat.kind is SpanKind.CONSUMER
    assert [span.attributes["truba.attempt"] for span in (first, second) if span.attributes] == [1, 2]
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    undone = next(span for span in spans.named("truba append") if span.parent == second.context)
    assert undone.attributes
    assert undone.attributes["truba.epoch"] == 2
    appended = spans.named("truba append")[0].attributes
    assert appended
    assert (appended["truba.records"], appended["truba.bytes"]) == (2, 3)
    assert "secret" not in str([span.to_json() for span in spans.named("truba new")])


async def test_over_the_wire_and_a_kill(pipes: Servers, spans: Spans) -> None:
    done = asyncio.Event()
    seen: list[truba.RepeatData] = []

    async def finish(repeat: truba.RepeatData) -> None:
        seen.append(repeat)
        if len(seen) == 2:
            done.set()

    handler = otel.traced_handler(finish, spans.tracer)
    async with truba.serve_handlers({7: handler}, "127.0.0.1:0") as service:
        config = pipes.configure(kind(handler=f"truba://{service.address}"))
        server = pipes.start_again(config)
        async with truba.connect(server.url) as plain:
            with spans.tracer.start_as_current_span("the job"):
                traced = await otel.traced(plain, spans.tracer).new(7, b"x", b"TRACE", b"TAG")
            untraced = await plain.new(7, b"y")
            await traced.store(1)
            await untraced.store(1)
        await asyncio.to_thread(server.kill)
        pipes.start_again(config)
        await asyncio.wait_for(done.wait(), 30)
    by_id = {repeat.session.id: repeat for repeat in seen}
    assert [*by_id[traced.id].records] == [b"x", b"TRACE", b"TAG"]
    assert by_id[untraced.id].trace == b""
    (job,) = spans.named("the job")
    roots = [span for span in spans.named("truba repeat") if span.parent is None]
    assert len(roots) == 1
    assert len(spans.named("truba repeat")) == 2
    assert job.context
    (repeat,) = (span for span in spans.named("truba repeat") if span.parent is not None)
    assert repeat.context
    assert repeat.context.trace_id == job.context.trace_id


async def test_records_that_are_objects(tmp_path: Path, spans: Spans) -> None:
    seen: list[object] = []

    async def finish(repeat: truba.TypedRepeat[object]) -> None:
        await repeat.session.append({"undone": 5})
        seen.extend(repeat.records)

    typed = replace(transfer(otel.traced_handler(finish, spans.tracer)), codec=Json())
    async with truba.open(tmp_path / "data", kinds=[typed]) as plain:
        session = await otel.traced(plain, spans.tracer).new(7, {"debited": 5})
        await session.store(0)
        await until(lambda: bool(spans.named("truba repeat")))
    assert seen == [{"debited": 5}]
    (new,), (repeat,) = spans.named("truba new"), spans.named("truba repeat")
    assert repeat.parent
    assert new.context
    assert repeat.parent.span_id == new.context.span_id
    assert new.attributes
    assert new.attributes["truba.records"] == 1
    assert "truba.bytes" not in new.attributes


async def test_a_block_is_one_span_and_a_failure_is_told(tmp_path: Path, spans: Spans) -> None:
    held = asyncio.Event()
    async with truba.open(tmp_path / "data", kinds=[transfer(lambda _: held.wait())]) as plain:  # type: ignore[arg-type]
        pipe = otel.traced(plain, spans.tracer)
        async with pipe.session(7, b"x") as session:
            inner = get_current_span()
            await session.append(b"y")
        with pytest.raises(LookupError):
            async with pipe.session(7, b"x"):
                raise LookupError("no such account")
        held.set()
        await pipe.close()
    well, failed = spans.named("truba new")
    assert inner.get_span_context() == well.context
    assert spans.named("truba append")[0].parent == well.context
    assert (well.status.status_code, failed.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)


async def test_a_plain_handler_runs_within_its_span(tmp_path: Path, spans: Spans) -> None:
    seen: list[tuple[int, str]] = []

    def finish(repeat: truba.sync.RepeatData) -> None:
        repeat.session.append(b"z")
        seen.append((get_current_span().get_span_context().trace_id, threading.current_thread().name))

    async with truba.open(tmp_path / "data", kinds=[transfer(otel.traced_handler(finish, spans.tracer))]) as plain:
        session = await otel.traced(plain, spans.tracer).new(7, b"x")
        await session.store(0)
        await until(lambda: bool(spans.named("truba repeat")))
    (trace_id, thread), *_ = seen
    assert thread.startswith("truba handler")
    assert spans.traces() == {trace_id} | {span.context.trace_id for span in spans.named("truba store") if span.context}


@pytest.mark.parametrize("text", [b"", b"nonsense", b"\xff\xfe", b"00-0-0-00", b"00-" + b"f" * 500, b"\n\n"])
def test_whatever_somebody_sent_as_a_context_is_survived(text: bytes) -> None:
    assert not get_current_span(otel.context_of(text)).get_span_context().is_valid


def test_a_context_is_carried_with_its_state_as_far_as_it_fits(spans: Spans) -> None:
    assert otel.carried() == b""
    with spans.tracer.start_as_current_span("a") as span:
        carried = otel.carried()
        assert len(carried) == 55
        found = get_current_span(otel.context_of(carried)).get_span_context()
        assert found.trace_id == span.get_span_context().trace_id
    assert get_current_span(otel.context_of(carried + b"\nvendor=x")).get_span_context().trace_state["vendor"] == "x"


async def test_a_context_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with truba.open(tmp_path / "data", kinds=[transfer(lambda _: None)]) as pipe:
        with pytest.raises(truba.TooBig, match="512"):
            await pipe.new(7, trace=b"x" * 513)
