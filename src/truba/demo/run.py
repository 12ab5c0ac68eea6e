"""The demo from an empty directory to the proof: starts everybody, gives out the work, kills, waits, has it proved."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from truba.client.admin import Admin
from truba.demo.bank import Banks
from truba.demo.deaths import DemoFailed, ended
from truba.demo.killer import HANDLER_DIES_AT, PAUSES_AT, Killer
from truba.demo.orders import Order, Orders
from truba.demo.pipes import Account, Pipe, until
from truba.demo.proof import Proof, prove
from truba.demo.show import Show
from truba.demo.transfers import KIND, Transfer
from truba.errors import OperationError
from truba.processes.child import Child
from truba.testing.ports import free_ports

WORKERS = 4
PAUSE_S = 3.0
"""Longer than idle_timeout: the paused worker's session is the handler's when it wakes up."""

HANDLER_DOWN_S = 0.5
DEADLINE_S = 300.0
"""For slow disks; a machine with a common SSD needs a tenth of it, a cluster on it a quarter."""


@dataclass(slots=True)
class Kills:
    """How often, by whom. Everything here is SIGKILL, but for the pauses (SIGSTOP, later SIGCONT)."""

    at_points: Counter[str] = field(default_factory=Counter)
    from_outside: int = 0
    handler: int = 0
    pauses: int = 0
    of_pipe: Mapping[str, int] = field(default_factory=dict)
    """What was done to the pipe or to its nodes; see `truba.demo.pipes`."""

    @property
    def workers(self) -> int:
        return self.at_points.total() + self.from_outside

    def as_dict(self) -> dict[str, Any]:
        return {
            "workers": self.workers,
            "at_points": dict(self.at_points),
            "from_outside": self.from_outside,
            "handler": self.handler,
            "pauses": self.pauses,
            **self.of_pipe,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    with_pipe: bool
    seed: int
    took_s: float
    kills: Kills
    given_again: int
    """Transfers whose first worker died, or was refused, before New was acknowledged."""
    taken_away: int
    """Transfers that a worker lost to the handler while it was still alive: its late writes were fenced."""
    handed_over: int
    """Hand-overs to the handler, as it tells itself; the proof does not rest on it."""
    proof: Proof
    account: Account | None
    """Of a pipe of several nodes."""

    @property
    def broken(self) -> tuple[str, ...]:
        """What does not hold, in words."""
        return self.proof.broken + (self.account.broken if self.account else ())

    def as_dict(self) -> dict[str, Any]:
        parts = {
            "kills": self.kills.as_dict(),
            "proof": self.proof.as_dict(),
            "account": self.account and self.account.as_dict(),
        }
        return {one.name: getattr(self, one.name) for one in fields(self)} | parts


class Demo:
    """One run in `directory`, which must be empty."""

    def __init__(
        self, directory: Path, transfers: Sequence[Transfer], *, seed: int, pipe: Pipe | None, show: Show
    ) -> None:
        """`pipe`: not started yet; None: work without one."""
        self._directory = directory
        self._transfers = transfers
        self._seed = seed
        self._pipe = pipe
        self._show = show
        self._board = show.board
        self._killer = Killer(seed)
        self._orders = Orders(transfers, self._killer.deaths(transfers))
        self._kills = Kills()
        self._children: set[Child] = set()
        self._busy: dict[str, Child] = {}  # workers with an order in hand
        self._paused: set[Child] = set()
        self._struck: set[Child] = set()  # those killed from outside
        self._pauses_left = list(PAUSES_AT)
        self._taken_away = 0
        self._handed_over = 0
        self._handler_address = f"127.0.0.1:{free_ports(1)[0]}"
        self._handler_up = asyncio.Event()
        self._account: Account | None = None
        self._stopping = False

    async def run(self) -> Outcome:
        """DemoFailed when something happens that no kill explains. No child is left, whatever happens."""
        Banks.create(self._directory, self._transfers)
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._all_work()
        except TimeoutError as error:
            left = self._orders.total - self._orders.taken
            raise DemoFailed(
                f"not done after {DEADLINE_S:.0f} s: {left} transfers not begun, sessions {self._board.unfinished}"
            ) from error
        except ExceptionGroup as group:
            raise _first(group) from group
        finally:
            await asyncio.gather(*(child.kill() for child in self._children))
            if self._pipe is not None:
                await self._pipe.end()
        if self._pipe is not None:
            self._kills.of_pipe = self._pipe.kills
        return Outcome(
            with_pipe=self._pipe is not None,
            seed=self._seed,
            took_s=round(loop.time() - started_s, 1),
            kills=self._kills,
            given_again=self._orders.given_again,
            taken_away=self._taken_away,
            handed_over=self._handed_over,
            proof=prove(self._directory, self._transfers),
            account=self._account,
        )

    async def _all_work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            others = []
            pipe = self._pipe
            if pipe is not None:
                others.append(tasks.create_task(self._keep_handler()))
                await self._handler_up.wait()
                others.append(tasks.create_task(pipe.keep(self._handler_address)))
                await pipe.up.wait()
                others.append(tasks.create_task(self._watch(pipe)))
                harm = tasks.create_task(pipe.harm(self._orders))
            workers = [tasks.create_task(self._keep_worker(f"worker {n}")) for n in range(1, WORKERS + 1)]
            others.append(tasks.create_task(self._kill_workers()))
            await asyncio.wait(workers)
            if pipe is not None:
                self._show.news("every transfer is begun; waiting for the last unfinished sessions")
                await harm
                await self._settled()
                self._stopping = True
                self._account = await pipe.stop()
                await self._stop_handler()
            for task in others:
                task.cancel()

    # -- workers ---------------------------------------------------------------------------------------------

    async def _keep_worker(self, name: str) -> None:
        """Start it, give it orders, start another when it dies, until every transfer is taken."""
        pipe = ("--pipe", *self._pipe.urls) if self._pipe is not None else ()
        while (order := await self._orders.next()) is not None:
            log = self._directory / "workers.log"
            child = await self._start(name, "truba.demo.worker", str(self._directory), *pipe, log=log)
            self._give(child, order)
            last = order
            async for line in child.lines():
                what, _, detail = line.split(" ", 2)
                if what == "taken":
                    self._orders.take(last)
                    self._board.taken = self._orders.taken
                    self._maybe_pause(child)
                    continue
                del self._busy[name]
                if what == "done":
                    self._board.by_workers += 1
                else:
                    self._lost(child, last, detail)
                following = await self._orders.next()
                if following is None:
                    child.hang_up()
                    break
                self._give(child, following)
                last = following
            await self._ended(child, last)

    def _give(self, child: Child, order: Order) -> None:
        self._busy[child.name] = child
        child.tell(order.to_line())

    def _lost(self, child: Child, order: Order, code: str) -> None:
        if order.taken:
            self._taken_away += 1
            self._show.news(f"{child.name} is told {code}: {order.transfer.id} is the handler's by now", "good")
        else:
            self._orders.drop(order)

    async def _ended(self, child: Child, order: Order) -> None:
        """A worker's process has ended: how, and what becomes of the order it held."""
        code = await child.wait()
        self._children.discard(child)
        self._paused.discard(child)
        held = self._busy.pop(child.name, None) is not None
        if code == 0 and not held:
            return
        if code != -signal.SIGKILL:
            raise DemoFailed(f"{child.name} ended with {code}; see {self._directory / 'workers.log'}")
        if held:
            self._orders.drop(order)
        if child in self._struck:
            self._kills.from_outside += 1
        else:
            self._kills.at_points[order.die] += 1
            self._show.news(f"{child.name} killed {order.die}, {order.transfer.id} in hand", "kill")
        self._board.workers_killed = self._kills.workers

    async def _kill_workers(self) -> None:
        for wait_s in self._killer.blows():
            await asyncio.sleep(wait_s)
            candidates = [name for name, child in sorted(self._busy.items()) if child not in self._paused]
            if candidates:
                child = self._busy[self._killer.victim(candidates)]
                self._struck.add(child)
                child.signal(signal.SIGKILL)
                self._show.news(f"{child.name} killed from outside", "kill")

    def _maybe_pause(self, child: Child) -> None:
        if self._pipe is not None and self._pauses_left and self._orders.progress >= self._pauses_left[0]:
            del self._pauses_left[0]
            self._kills.pauses += 1
            self._paused.add(child)
            child.signal(signal.SIGSTOP)
            self._show.news(f"{child.name} stopped for {PAUSE_S:g} s, in the middle of a transfer", "kill")
            asyncio.get_running_loop().call_later(PAUSE_S, self._wake, child)

    def _wake(self, child: Child) -> None:
        child.signal(signal.SIGCONT)
        self._paused.discard(child)

    # -- handler and pipe ------------------------------------------------------------------------------------

    async def _keep_handler(self) -> None:
        while True:
            command = ("truba.demo.handler", str(self._directory), self._handler_address)
            log = self._directory / "handler.log"
            child = await self._start("handler", *command, log=log)
            async for line in child.lines():
                what, of, _ = (line + "  ").split(" ", 2)
                match what:
                    case "ready":
                        self._handler_up.set()
                        self._board.others["handler"] = "up"
                    case "handed":
                        self._handed_over += 1
                        if self._kills.handler == 0 and self._orders.progress >= HANDLER_DIES_AT:
                            self._kills.handler += 1
                            child.signal(signal.SIGKILL)
                            self._show.news(f"the handler killed, {of} in hand", "kill")
                    case "finished":
                        self._board.by_handler += 1
                    case _:
                        raise DemoFailed(f"the handler said {line!r}")
            self._board.others["handler"] = "stopped" if self._stopping else "killed"
            stopped = await ended(child, stopping=self._stopping, kills=self._kills.handler, log=log)
            self._children.discard(child)
            if stopped:
                return
            await asyncio.sleep(HANDLER_DOWN_S)

    async def _watch(self, pipe: Pipe) -> None:
        """Keep the board's count of sessions; None while the pipe does not answer."""
        for turn in itertools.count():
            await pipe.up.wait()
            try:
                admin = await Admin.connect(pipe.urls[turn % len(pipe.urls)], timeout_s=2.0)
                try:
                    while True:
                        counts = (await admin.kinds())[KIND].sessions
                        self._board.unfinished = {str(phase): number for phase, number in counts.items()}
                        await asyncio.sleep(0.1)
                finally:
                    await admin.close()
            except (OperationError, OSError):
                self._board.unfinished = None
                await asyncio.sleep(0.1)

    async def _settled(self) -> None:
        """Every transfer was taken; wait until the pipe knows of no session any more."""
        await until(lambda: self._kills.handler == 1)
        self._board.unfinished = None  # look again: what is there may be older than the last order
        await until(self._none_unfinished)

    def _none_unfinished(self) -> bool:
        counts = self._board.unfinished
        if counts is not None and counts["parked"]:
            raise DemoFailed(f"the pipe parked {counts['parked']} sessions")
        return counts is not None and not any(counts.values())

    async def _stop_handler(self) -> None:
        """SIGTERM; its keeper checks that it ends with 0."""
        for child in [child for child in self._children if child.name == "handler"]:
            child.signal(signal.SIGTERM)
            await child.wait()

    async def _start(self, name: str, module: str, *args: str, log: Path, **options: Any) -> Child:
        child = await Child.start(name, sys.executable, "-m", module, *args, log=log, **options)
        self._children.add(child)
        return child


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first real exception in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
