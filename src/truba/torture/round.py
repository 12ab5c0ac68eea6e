"""One round, all of it from a seed: harm everybody, kill all, start again, and wait until nothing is unfinished.

    clients and handlers at work, everybody harmed  ->  all killed
    the pipe alone starts                           ->  every session that it knows is read
    handlers start, and bring all to an end         ->  it must know of nothing any more, within a bound
    all journals are read                           ->  every session is checked

Every process is tied to this one: it ends when this one ends, in whatever way.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from truba.client.admin import Admin
from truba.client.remote import RemotePipe
from truba.client.target import parse_target
from truba.errors import OperationError, TrubaError
from truba.torture import client
from truba.torture.checker import Rules, Unexplained, explain
from truba.torture.harm import Harm, harm
from truba.torture.history import Asked, Listed, Told
from truba.torture.journal import Journal, read_journal
from truba.torture.kept import EndedByItself, Kept
from truba.torture.plan import ATTEMPTS_MAX, RECOVERY_DELAY_S, Plan
from truba.torture.sessions import Session, gather
from truba.torture.steering import HELD_BACK_S, misled, say, steer
from truba.types import Phase

PIPE = (sys.executable, "-m", "truba")
"""The command whose `serve` is tortured."""

HARMED_S = 8.0
START_S_MAX = 60.0
"""From the start of a process to its first sign of life, on a busy machine."""

DRAIN_S_MAX = 90.0
"""From the last harm to the end of the last session. It takes a few seconds, and five more when the pipe has just
failed to reach a handler."""


FINDINGS_MAX = 20
"""Then the rest is not checked: it is broken."""


class TortureFailed(TrubaError):
    """The round could not be carried out: that says nothing about the pipe."""


class Finding(NamedTuple):
    """Something that must not be."""

    what: str
    session: Session | None = None
    unexplained: Unexplained | None = None


@dataclass(slots=True)
class Round:
    """What came of one."""

    seed: int
    harm: Harm = field(default_factory=Harm)
    outcomes: Counter[str] = field(default_factory=Counter)
    """Calls by outcome: ok, refused, unknown."""
    sessions: int = 0
    deliveries: int = 0
    worked_s: float = 0.0
    """How long clients were at work."""
    findings: list[Finding] = field(default_factory=list)


async def play(
    directory: Path,
    seed: int,
    *,
    pipe_command: Sequence[str] = PIPE,
    harmed_s: float = HARMED_S,
    tell: Callable[[str], None] = lambda text: None,
) -> Round:
    """One round in that empty directory. TortureFailed: it could not be carried out."""
    playing = _Playing(directory, seed, pipe_command, tell)
    apart_s = time.time() - time.monotonic()
    try:
        await playing.play(harmed_s)
    except* EndedByItself as group:
        for error in group.exceptions:
            if not (isinstance(error, EndedByItself) and error.part == "pipe"):
                raise TortureFailed(str(error)) from error
            playing.round.findings.append(Finding(str(error)))
    except* Overdue as group:
        playing.round.findings += [Finding(str(error)) for error in group.exceptions]
    tell("reading the journals")
    # The pipe decides by the wall clock what is due, the journals use another one: how far did they part?
    drift_s = abs(time.time() - time.monotonic() - apart_s)
    await asyncio.to_thread(playing.check, Rules().slack_s + drift_s)
    return playing.round


class Overdue(Exception):
    """What had to happen within a bound has not happened."""


class _Playing:
    def __init__(self, directory: Path, seed: int, pipe_command: Sequence[str], tell: Callable[[str], None]) -> None:
        self.round = Round(seed)
        self._dice = random.Random(seed)
        self._plan = Plan.make(directory, seed, self._dice, pipe_command)
        self._tell = tell
        self._tasks: asyncio.TaskGroup

    async def play(self, harmed_s: float) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            await self._harmed(harmed_s)
            pipe = self._plan.pipe()
            await self._looked_at(pipe)
            await self._drained(pipe)

    def _keep(self, *processes: Kept) -> None:
        for process in processes:
            self._tasks.create_task(process.keep(), name=f"keep {process.name}")

    async def _harmed(self, seconds: float) -> None:
        self._tell("at work")
        plan, dice = self._plan, self._dice
        pipe = plan.pipe()
        everybody = [pipe, *plan.clients(), *plan.handlers(finishing=False)]
        begun_s = time.monotonic()
        self._keep(*everybody)
        await _within(START_S_MAX, pipe.ready.wait(), "the pipe is not ready")
        until_s = time.monotonic() + seconds
        steering = self._tasks.create_task(self._steered(random.Random(dice.random())), name="operator")
        await harm(everybody, dice, lambda: time.monotonic() > until_s, self.round.harm)
        steering.cancel()
        dice.shuffle(everybody)
        for one in everybody:
            self.round.harm.kills[one.part] += one.kill()
        for one in everybody:
            await one.end()
        self.round.worked_s = time.monotonic() - begun_s

    async def _steered(self, dice: random.Random) -> None:
        with Journal(self._plan.journals / "o0-0.jsonl") as journal:
            await steer(journal, self._plan.url, tuple(self._plan.ports), dice, START_S_MAX)

    async def _looked_at(self, pipe: Kept) -> None:
        self._tell("what does it know?")
        self._keep(pipe)
        await _within(START_S_MAX, pipe.ready.wait(), "the pipe is not ready after all were killed")
        await _within(START_S_MAX, self._look("a0-1"), "not all sessions could be read")

    async def _look(self, name: str) -> None:
        """List all sessions, and read each."""
        with Journal(self._plan.journals / f"{name}.jsonl") as journal:
            remote = RemotePipe([parse_target(self._plan.url)], None, 0.0, START_S_MAX, None, None)
            await remote.open(patience_s=START_S_MAX)
            async with remote:
                begin_s = time.monotonic()
                admin = Admin(remote)
                ids = tuple([str(info.id) async for info in admin.ls()])
                paused = tuple(number for number, kind in (await admin.kinds()).items() if kind.paused)
                journal.write(Listed(begin_s, time.monotonic(), ids, paused))
                for session_id in ids:
                    await client.read(journal, remote, session_id)

    async def _drained(self, pipe: Kept) -> None:
        self._tell("bringing all to an end")
        handlers = self._plan.handlers(finishing=True)
        self._keep(*handlers)
        with Journal(self._plan.journals / "o0-1.jsonl") as journal:
            await _within(START_S_MAX, self._continued(journal), "a paused kind cannot be continued")
            await _within(DRAIN_S_MAX, self._none_left(journal), "sessions are unfinished, though all live and answer")
        await _within(START_S_MAX, self._look("a0-2"), "the sessions could not be listed")
        await _within(START_S_MAX, pipe.stop(), "the pipe does not stop")
        for one in handlers:
            await one.end()

    async def _continued(self, journal: Journal) -> None:
        """Every paused kind, after handlers for it had the time to be given what must not be."""
        async with Admin.over(self._plan.url, timeout_s=START_S_MAX) as admin:
            if paused := [number for number, kind in (await admin.kinds()).items() if kind.paused]:
                await asyncio.sleep(HELD_BACK_S)
            for number in paused:
                await say(journal, number, admin.continue_kind(number), on=False)

    async def _none_left(self, journal: Journal) -> None:
        """Nobody is told when the pipe is empty, so it is asked again and again; what is parked is released."""
        async with Admin.over(self._plan.url, timeout_s=START_S_MAX) as admin:
            while left := [info async for info in admin.ls()]:
                for info in left:
                    if info.phase is Phase.PARKED:
                        await journal.call("release", admin.resume(info.id), id=str(info.id))
                await asyncio.sleep(0.1)

    def check(self, slack_s: float) -> None:
        """Every session, by all that was written down about it."""
        journals = {path.stem: read_journal(path) for path in sorted(self._plan.journals.iterdir())}
        gathered = gather(journals)
        one = self.round
        one.findings += [Finding(f"{name}: {what}") for name, what in gathered.odd]
        one.findings += [Finding(f"{name}: {what}") for name, what in misled(journals, self._plan.ports)]
        for session in gathered.sessions:
            kind = session.kind
            rules = Rules(RECOVERY_DELAY_S.get(kind, 0.0), ATTEMPTS_MAX.get(kind, 0), slack_s)
            if len(one.findings) < FINDINGS_MAX and (unexplained := explain(session.calls, rules)):
                one.findings.append(Finding(f"{session.label}: {unexplained.why}", session, unexplained))
        one.sessions = len(gathered.sessions)
        one.deliveries = sum(call.verb == "deliver" for session in gathered.sessions for call in session.calls)
        for lines in journals.values():
            told = Counter(line.outcome for line in lines if isinstance(line, Told))
            one.outcomes += told
            one.outcomes["unknown"] += sum(isinstance(line, Asked) for line in lines) - told.total()


async def _within(seconds: float, doing: Awaitable[object], else_: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await doing
    except TimeoutError as error:
        raise Overdue(f"{else_}, after {seconds:.0f} s") from error
    except OperationError as error:
        raise Overdue(f"{else_}: {error}") from error
