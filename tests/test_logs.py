"""Log messages: their two forms, the levels, the standard library's way in, and that no record is ever shown."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from truba import logs
from truba.types import Index

SECRET = b"the record itself"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_when_not_a_terminal() -> None:
    stream = io.StringIO()
    early = structlog.get_logger()
    logs.configure(stream=stream)
    early.info("session stored", id=Index(3, 117), due_ms=5)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "session stored", "level": "info", "id": "3-117", "due_ms": 5}


@pytest.mark.parametrize("no_color", ["", "1"])
def test_readable_on_a_terminal(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    logs.configure(stream=stream)
    structlog.get_logger().info("ready", listen="127.0.0.1:7433")
    assert "ready" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert ("\x1b[" in stream.getvalue()) is not bool(no_color)


def test_the_level_holds_for_both_ways_in() -> None:
    stream = io.StringIO()
    logs.configure("warning", stream=stream)
    structlog.get_logger().info("no")
    logging.getLogger("asyncio").info("no")
    structlog.get_logger().warning("yes")
    logging.getLogger("asyncio").warning("yes %s", "indeed")
    assert [line["event"] for line in lines(stream)] == ["yes", "yes indeed"]
    assert lines(stream)[1]["logger"] == "asyncio"


@pytest.mark.parametrize("form", ["json", "console"])
def test_contents_of_records_are_never_shown(form: logs.Format) -> None:
    stream = io.StringIO()
    logs.configure(form=form, stream=stream)
    log = structlog.get_logger()
    log.info(
        "a", record=SECRET, many=[SECRET, (SECRET, {"deep": bytearray(SECRET)}), {SECRET: 1}], view=memoryview(SECRET)
    )
    try:
        local = SECRET
        raise RuntimeError(f"about {len(local)} bytes")
    except RuntimeError:
        log.exception("b")
        logging.getLogger("x").exception("c")
    assert "the record itself" not in stream.getvalue()
    assert "<17 bytes>" in stream.getvalue()
    assert stream.getvalue().count("about 17 bytes") == 2


def test_configured_again_nothing_is_said_twice() -> None:
    stream = io.StringIO()
    logs.configure(stream=io.StringIO())
    logs.configure(stream=stream)
    logging.getLogger().warning("once")
    assert len(lines(stream)) == 1
