"""A client under torture: opens sessions, works on many at a time, and writes down each call. It runs until killed.

python -m truba.torture.client SETUP, a JSON document of the type below.

A later life of the same client has the same token: it takes over what its predecessor held and goes on with it. Now and
then it writes to a session that it does not hold any more, which must be refused.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

import truba
from truba.client.remote import RemotePipe, RemoteSession
from truba.errors import NoSession, OperationError, UnknownOutcome
from truba.torture.history import Found, Held, Phase, Verb, make_record, read_records, record_name
from truba.torture.journal import Journal

CONNECT_TIMEOUT_S = 120.0
LIVES_TAGS = 1_000_000
"""Tags of each life of a client, which names its sessions by them."""

RECENT = 20
"""Sessions that are remembered, to trespass on them."""

RECORD_BYTES = (0, 20, 200, 2_000, 20_000)


class Setup(msgspec.Struct, frozen=True):
    name: str  # `c0-2`: the second life of client c0
    journal: str
    url: str
    token: str
    grace_s: float
    timeout_s: float
    kinds: tuple[int, ...]
    seed: int
    sessions: int  # at a time
    store_s_max: float

    @property
    def owner(self) -> str:
        return self.name.partition("-")[0]

    @property
    def life(self) -> int:
        return int(self.name.partition("-")[2])


class Client:
    def __init__(self, setup: Setup, journal: Journal) -> None:
        self._setup = setup
        self._journal = journal
        self._dice = random.Random(f"{setup.seed} {setup.name}")
        self._names = itertools.count(1)
        self._tags = itertools.count(setup.life * LIVES_TAGS)
        self._pipe: RemotePipe
        self._recent: list[tuple[str, str]] = []  # label and id of sessions that were ended or lost

    async def run(self) -> None:
        setup = self._setup
        connecting = truba.connect(
            setup.url,
            token=setup.token.encode(),
            grace_s=setup.grace_s,
            timeout_s=setup.timeout_s,
            connect_timeout_s=CONNECT_TIMEOUT_S,
        )

        async def connect() -> RemotePipe:
            return await connecting

        self._pipe = await self._journal.call("resume", connect(), lambda pipe: {"held": tuple(self._held(pipe.held))})
        async with asyncio.TaskGroup() as tasks:
            for tag, session in self._pipe.held.items():
                tasks.create_task(self._settle(Work(self, session, self._label(tag))))
            for _ in range(setup.sessions):
                tasks.create_task(self._work())

    def _label(self, tag: int) -> str:
        return f"{self._setup.owner}.{tag}"

    def _held(self, held: Mapping[int, RemoteSession]) -> Any:
        for tag, session in held.items():
            yield Held(self._label(tag), str(session.id), session.operations)

    def record(self, label: str) -> tuple[bytes, str]:
        """A new one, and its name in the journal."""
        name, size = f"{self._setup.name}.{next(self._names)}", self._dice.choice(RECORD_BYTES)
        return make_record(label, name, size), record_name(name, size)

    async def _work(self) -> None:
        """One session after the other."""
        while True:
            tag = next(self._tags)
            label = self._label(tag)
            records = [self.record(label) for _ in range(self._dice.choice((0, 1, 1, 1, 2)))]
            kind = self._dice.choice(self._setup.kinds)
            call = self._pipe.new(kind, *(record for record, _ in records), tag=tag)
            names = tuple(name for _, name in records)
            try:
                session = await self._journal.call(
                    "open", call, lambda made: {"id": str(made.id)}, label=label, records=names, kind=kind
                )
            except OperationError as error:
                if error.happened == "no":
                    await asyncio.sleep(0.05)  # the pipe is stopping, or away
                continue
            if await self._settle(Work(self, session, label)):
                self._recent = [*self._recent[-RECENT:], (label, str(session.id))]
            if self._recent and self._dice.random() < 0.2:
                await self._trespass()
            if self._recent and self._dice.random() < 0.05:
                await self._operate()
            if self._dice.random() < 0.2:
                await self._peek(label, str(session.id))

    async def _settle(self, work: Work) -> bool:
        """Do some steps, and end; what an error ends is left to the pipe. False: what became of it is unknown."""
        dice = self._dice
        try:
            for _ in range(dice.randrange(6)):
                await work.step(dice)
            await work.end(dice, self._setup.store_s_max)
        except OperationError as error:
            return error.happened == "no"
        return True

    async def _trespass(self) -> None:
        """Write to a session that this client has ended, or lost, or left alone."""
        label, session_id = self._dice.choice(self._recent)
        record, name = self.record(label)
        given: dict[str, Any] = {"label": label, "id": session_id}
        ref = session_id.encode() + self._dice.choice((b"", b"@0"))
        try:
            match self._dice.randrange(3):
                case 0:
                    call = self._pipe.request(b"APPEND", ref, record)
                    await self._journal.call("append", call, records=(name,), **given)
                case 1:
                    call = self._pipe.request(b"REPLACE", ref, record)
                    await self._journal.call("replace", call, records=(name,), **given)
                case _:
                    await self._journal.call("delete", self._pipe.request(b"DELETE", ref), **given)
        except OperationError:
            return

    async def _operate(self) -> None:
        """An operator has a session of this client delivered at once, or removes it: while nobody holds it only."""
        label, session_id = self._dice.choice(self._recent)
        verb: Verb = self._dice.choice(("release", "remove"))
        command = b"RESUME" if verb == "release" else b"REMOVE"
        try:
            call = self._pipe.request(command, session_id.encode())
            await self._journal.call(verb, call, label=label, id=session_id)
        except OperationError:
            return

    async def _peek(self, label: str, session_id: str) -> None:
        """What is it, by an operator's question?"""
        try:
            await read(self._journal, self._pipe, session_id, label)
        except OperationError:
            return

    @property
    def journal(self) -> Journal:
        return self._journal


class Work:
    """A session in hand."""

    def __init__(self, client: Client, session: RemoteSession, label: str) -> None:
        self._client = client
        self._session = session
        self._given: dict[str, Any] = {"label": label, "id": str(session.id)}
        self._label = label

    async def step(self, dice: random.Random) -> None:
        journal, session = self._client.journal, self._session
        match dice.choices(("append", "burst", "replace", "touch", "pause"), (6, 2, 2, 1, 1))[0]:
            case "append":
                await self._append(dice.choice((1, 1, 2, 3)))
            case "burst":  # not waiting for one another
                await _all(self._append(1), self._append(1), self._append(2))
            case "replace":
                record, name = self._client.record(self._label)
                await journal.call("replace", session.replace(record), records=(name,), **self._given)
            case "touch":
                await journal.call("touch", session.touch(), **self._given)
            case _:
                await asyncio.sleep(dice.expovariate(10))

    async def _append(self, count: int) -> None:
        records = [self._client.record(self._label) for _ in range(count)]
        call = self._session.append(*(record for record, _ in records))
        await self._client.journal.call("append", call, records=tuple(name for _, name in records), **self._given)

    async def end(self, dice: random.Random, store_s_max: float) -> None:
        journal, session = self._client.journal, self._session
        match dice.choices(("delete", "store", "fail", "leave"), (60, 25, 8, 7))[0]:
            case "delete":
                await journal.call("delete", session.delete(), **self._given)
            case "store":
                # In whole milliseconds, as the pipe keeps it: rounded up by the client, never down.
                delay_s = dice.choice((0, dice.randrange(round(store_s_max * 1000)) / 1000))
                await journal.call("store", session.store(delay_s), delay_s=delay_s, **self._given)
            case "fail":
                await journal.call("fail", session.fail("of torture"), **self._given)
            case _:
                pass  # it is idle from now on


async def _all(*calls: Any) -> None:
    """Wait for all, then raise an error, one of unknown outcome first."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda error: not isinstance(error, UnknownOutcome)):
        raise error


async def read(journal: Journal, pipe: RemotePipe, session_id: str, label: str = "") -> None:
    """SHOW, written down. NoSession is an answer."""

    async def show() -> Found:
        try:
            flat = await pipe.request(b"SHOW", session_id.encode(), read=True)
        except NoSession:
            return Found("gone")
        fields = {bytes(flat[at]).decode(): flat[at + 1] for at in range(0, len(flat), 2)}
        said, names = read_records(fields["records"])
        phase: Phase = fields["phase"].decode()
        return Found(phase, fields["epoch"], said, names)

    await journal.call("read", show(), lambda found: {"found": found}, label=label, id=session_id)


def main() -> None:
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    with Journal(Path(setup.journal)) as journal:
        asyncio.run(Client(setup, journal).run())


if __name__ == "__main__":
    main()
