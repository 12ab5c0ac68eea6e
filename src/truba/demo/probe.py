"""A client that only writes, one operation after the other, in a session of its own: it sees how long nothing is
acknowledged, and at the end it reads everything again.

An append of unknown outcome ends its session's part in this: another session is opened, and of the old one every
acknowledged record must be there, and at most the doubtful one after them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import truba
from truba.client.admin import Admin
from truba.errors import OperationError
from truba.session import Session

KIND = 8
"""A kind of its own, which nobody finishes: what was written is to be there at the end."""

KINDS = f"""\
[kinds.probe]
number = {KIND}
handler = "truba://{{handler}}"
recovery_delay = "1h"
"""

APART_S = 0.02
"""Between two operations: a pause is known to about this."""

GRACE_S = 60.0


class Probe:
    """`run` until it is cancelled; then `missing`."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.longest_s = 0.0
        """The longest time without an acknowledged operation since `begin`, in seconds."""
        self._written: dict[str, tuple[Session, list[bytes]]] = {}  # by id: what was acknowledged, in order
        self._last_s = 0.0  # when the last operation was acknowledged
        self._last_sent_s = 0.0  # and when that one was sent

    async def run(self, urls: Sequence[str]) -> None:
        async with truba.connect(urls, grace_s=GRACE_S, connect_timeout_s=GRACE_S) as pipe:
            self._last_s = time.monotonic()
            while True:
                try:
                    session = await pipe.new(KIND)
                    acknowledged: list[bytes] = []
                    self._written[str(session.id)] = session, acknowledged
                    while True:
                        record, sent_s = b"%d" % self.acknowledged, time.monotonic()
                        await session.append(record)
                        acknowledged.append(record)
                        self._saw(sent_s)
                        await asyncio.sleep(APART_S)
                except OperationError:  # what it says of the outcome is held against the records at the end
                    await asyncio.sleep(APART_S)

    def _saw(self, sent_s: float) -> None:
        now_s = time.monotonic()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._last_s, self._last_sent_s = now_s, sent_s
        self.acknowledged += 1

    def begin(self) -> None:
        """Measure from now on."""
        self.longest_s = 0.0

    async def answered(self) -> None:
        """Until an operation is acknowledged that was sent after this call."""
        from_s = time.monotonic()
        while self._last_sent_s < from_s:  # noqa: ASYNC110 - what it waits for is another process's
            await asyncio.sleep(0.005)

    async def missing(self, url: str) -> list[str]:
        """What was acknowledged and is not there, or is there and was never asked for: a sentence for each session."""
        wrong = []
        async with Admin.over(url) as admin:
            for id_, (session, acknowledged) in self._written.items():
                _, records = await admin.show(session.id)
                found = [bytes(record) for record in records]
                if found[: len(acknowledged)] != acknowledged or len(found) > len(acknowledged) + 1:
                    wrong.append(
                        f"session {id_}: {len(acknowledged)} records were acknowledged, {len(found)} are there"
                    )
        return wrong
