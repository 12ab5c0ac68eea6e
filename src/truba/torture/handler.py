"""A handler under torture: finishes sessions, or does not, and writes down each delivery and call. Runs until killed.

python -m truba.torture.handler SETUP, a JSON document of the type below.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
import sys
from pathlib import Path
from typing import Any

import msgspec

import truba
from truba.client.handlers import HandlerServer
from truba.errors import OperationError
from truba.torture.client import CONNECT_TIMEOUT_S, RECORD_BYTES
from truba.torture.history import make_record, read_records, record_name
from truba.torture.journal import Journal

BIND_TRIES = 300
BIND_PAUSE_S = 0.1
"""The port may be somebody else's for a moment, or that of our predecessor's last connections."""


class Setup(msgspec.Struct, frozen=True):
    name: str
    journal: str
    listen: str
    url: str  # of the pipe
    kind: int
    seed: int
    timeout_s: float  # the kind's handler_timeout
    store_s_max: float
    finishing: bool  # the torture is over: all is brought to an end


class Handler:
    def __init__(self, setup: Setup, journal: Journal) -> None:
        self._setup = setup
        self._journal = journal
        self._dice = random.Random(f"{setup.seed} {setup.name}")
        self._names = itertools.count(1)
        self._trespasses: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        for _ in range(BIND_TRIES):
            try:
                server = await truba.serve_handlers({self._setup.kind: self.handle}, self._setup.listen, credit=64)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                await asyncio.sleep(BIND_PAUSE_S)
        else:
            sys.exit(f"{self._setup.listen} is in use")
        self._quiet(server)
        await server.serve_forever()

    @staticmethod
    def _quiet(server: HandlerServer) -> None:
        """Handlers fail on purpose here, and the pipe dies under them."""
        server.on_trouble = lambda message, error: None

    async def handle(self, repeat: truba.RepeatData) -> None:
        session, journal, dice = repeat.session, self._journal, self._dice
        label, names = read_records([bytes(record) for record in repeat.records])
        given: dict[str, Any] = {"label": label, "id": str(session.id), "epoch": session.epoch}
        journal.delivered(cause=str(repeat.cause), records=names, **given)

        async def append() -> None:
            record, name = self._record(label)
            await journal.call("append", session.append(record), records=(name,), **given)

        async def replace() -> None:
            record, name = self._record(label)
            await journal.call("replace", session.replace(record), records=(name,), **given)

        async def delete() -> None:
            await journal.call("delete", session.delete(), **given)

        if self._setup.finishing:
            if label and dice.random() < 0.3:
                await append()
            await delete()
            return
        if label:  # else nobody could tell whose records these are
            for _ in range(dice.choice((0, 0, 1, 1, 2))):
                await (append() if dice.random() < 0.7 else replace())
        match dice.choices(("delete", "store", "fail", "raise", "hang"), (55, 20, 10, 8, 7))[0]:
            case "delete":
                await delete()
            case "store":
                delay_s = dice.randrange(round(self._setup.store_s_max * 1000)) / 1000
                await journal.call("store", session.store(delay_s), delay_s=delay_s, **given)
            case "fail":
                await journal.call("fail", session.fail("of torture"), **given)
            case "raise":
                raise RuntimeError("of torture")
            case _:
                try:
                    await asyncio.sleep(self._setup.timeout_s * 2)
                except asyncio.CancelledError:
                    if label:
                        self._trespass_soon(label, given)
                    raise
                raise RuntimeError("of torture: nobody took it away")

    def _record(self, label: str) -> tuple[bytes, str]:
        name, size = f"{self._setup.name}.{next(self._names)}", self._dice.choice(RECORD_BYTES)
        return make_record(label, name, size), record_name(name, size)

    def _trespass_soon(self, label: str, given: dict[str, Any]) -> None:
        task = asyncio.get_running_loop().create_task(self._trespass(label, given))
        self._trespasses.add(task)
        task.add_done_callback(self._trespasses.discard)

    async def _trespass(self, label: str, given: dict[str, Any]) -> None:
        """Write to the session although it was taken away, through another door."""
        record, name = self._record(label)
        ref = f"{given['id']}@{given['epoch']}".encode()
        try:
            async with truba.connect(self._setup.url, grace_s=0, connect_timeout_s=CONNECT_TIMEOUT_S) as pipe:
                await self._journal.call("append", pipe.request(b"APPEND", ref, record), records=(name,), **given)
        except OperationError:
            return


def main() -> None:
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    with Journal(Path(setup.journal)) as journal:
        asyncio.run(Handler(setup, journal).run())


if __name__ == "__main__":
    main()
