"""The program's own log messages (not the write-ahead log): readable on a terminal, JSON lines otherwise, to stderr.

Called once by each program, before anything else speaks; libraries only ask structlog for a logger. Contents of records
are never logged: whatever bytes a message is given are shown as their length. Nor are local variables of tracebacks.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]


def configure(level: Level = "info", form: Format = "auto", stream: TextIO | None = None) -> None:
    """Route structlog's messages and those of the standard library to `stream` (stderr when None).

    "auto" is "console" on a terminal and "json" otherwise. Calling it again replaces what was set before.
    """
    out = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        hide_bytes,
    ]
    render: list[Processor]
    if form == "console" or (form == "auto" and out.isatty()):
        colors = out.isatty() and not os.environ.get("NO_COLOR")
        plain = structlog.dev.plain_traceback  # the pretty ones show local variables, and with them records
        render = [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, pad_event_to=0)]
    else:
        render = [structlog.processors.format_exc_info, _in_order, structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,  # a logger made before this call must obey it too
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    logging.captureWarnings(capture=True)


def hide_bytes(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor: bytes, at any depth, become `<12 bytes>`."""
    return {key: _shown(value) for key, value in event.items()}


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What a person looks for first stands first."""
    first = ("timestamp", "level", "event")
    return {key: event[key] for key in first if key in event} | dict(event)


def _shown(value: Any) -> Any:
    match value:
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Mapping():
            return {_shown(key): _shown(inner) for key, inner in value.items()}
        case tuple() if hasattr(value, "_fields") and str(value) != repr(value):
            return str(value)  # an Index, an Address: it knows how to print itself
        case list() | tuple() | set() | frozenset():
            return [_shown(inner) for inner in value]
        case _:
            return value
