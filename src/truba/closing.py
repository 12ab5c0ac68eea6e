"""The end of a process that has a log and a store: what its parts meet is told to its operator, and all of them end."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from truba.ports.frontend import Frontend
from truba.remedy import remedy

log = structlog.get_logger("truba.service")


def given_back(close: Callable[[], None]) -> bool:
    """Give log and store back; False, and a line in the log, when that fails. What RocksDB met in the background, and
    told nobody, it tells now at the latest."""
    try:
        close()
    except Exception as error:
        log.error(
            "the store has failed",
            error=str(error),
            outcome="everything acknowledged is stored: what the store lacks is in the log",
            next=f"{remedy(error)}, then start again",
        )
        return False
    return True


async def stopped(frontend: Frontend) -> None:
    """Stop it. It may be one of the user's own: what it meets is told, and all else is stopped after it."""
    try:
        await frontend.stop()
    except Exception as error:
        name = type(frontend).__name__
        log.error("frontend not stopped cleanly", frontend=name, error=repr(error), exc_info=error)
