"""Which ends of a child are part of the show, and which are a failure of the demo."""

from __future__ import annotations

import signal
from pathlib import Path

from truba.errors import TrubaError
from truba.processes.child import Child


class DemoFailed(TrubaError):
    """Something happened that no kill explains."""


async def ended(child: Child, *, stopping: bool, kills: int, log: Path) -> bool:
    """Wait for the end of one that dies once: True when it was asked to stop, False when it was killed.

    DemoFailed: neither was done to it, or it did not stop cleanly.
    """
    code = await child.wait()
    if code == 0 and stopping:
        return True
    if code != -signal.SIGKILL or kills != 1:
        raise DemoFailed(f"the {child.name} ended with {code}; see {log}")
    return False
