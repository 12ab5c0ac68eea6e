"""Who works with the cluster: clients, handler services, and an operator. All of them may stop at any moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, Literal

from tests.cluster.storms.history import Job, Op, Steering
from tests.cluster.storms.lines import Broken, Line
from truba.client.resume import in_time
from truba.errors import OperationError
from truba.kinds import Kind
from truba.node.node import Node
from truba.node.owners import Owner
from truba.types import Index, Phase

if TYPE_CHECKING:
    from tests.cluster.storms.nodes import Link, StormSeat
    from tests.cluster.storms.world import StormWorld


class Person:
    """`dice` are its own: what it does does not depend on how often others throw theirs."""

    def __init__(self, world: StormWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.dice = random.Random(f"{world.seed} {name}")
        self.context = Context()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._records = 0

    def record(self) -> bytes:
        """Unlike every other one."""
        self._records += 1
        return f"{self.name}.{self._records}{'.' * self.dice.choice((0, 0, 0, 1, 20, 200))}".encode()

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name, context=self.context.copy())
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.fail(error)

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    async def leave(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def answered(self, answer: asyncio.Future[Any], within_s: float = 2.0) -> Any:
        """Broken: it was not, in time or ever."""
        done, _ = await asyncio.wait([answer], timeout=within_s)
        if not done:
            raise Broken
        return answer.result()


class Client(Person):
    """Opens sessions and works on them, with a token in the first `named` of its lives. Comes back, or dies."""

    def __init__(self, world: StormWorld, name: str) -> None:
        super().__init__(world, name)
        self.pace_s = self.dice.choice((0.05, 0.2, 0.5))
        self._left = self.dice.choice((5, 20, 40))  # sessions to open: all that happens is to be afforded
        self._lives = 0
        self._mine: list[Job] = []
        self._sure_s = 0.0  # when the last request was sent that was answered
        self._held: dict[Job, float] = {}  # in this life, with no end asked for: when the last such request was sent
        self._ending: dict[Job, Op] = {}  # the end was asked for, one at a time, and not answered

    def start(self) -> None:
        self.begin(self._live(), self.name)

    async def _live(self) -> None:
        dice = self.dice
        while self._left and not self.world.over:
            self._lives += 1
            token = f"{self.name} in life {self._lives}".encode() if dice.random() < 0.6 else b""
            grace_s = dice.choice((0.0, 1.0, 5.0))
            again = True
            self._held, self._ending = {}, {}
            while again and self._left and not self.world.over:
                await asyncio.sleep(dice.expovariate(1 / self.pace_s))
                seat = self.world.find_door(dice)
                if seat is None or (node := seat.node) is None:
                    await asyncio.sleep(0.3)
                    continue
                line = Line(self.world, seat, node, self.name)
                line.named = None if token else b""
                haunts = False
                try:
                    await self._visit(line, token, grace_s)
                except Broken:
                    self.world.story.tell(self.name, f"hears no more from {seat.name}")
                    haunts = dice.random() < 0.3 and line.named is not None and not line.ended_here
                    again = bool(token) and dice.random() < 0.8
                except OperationError as refusal:
                    self.world.story.tell(self.name, f"is refused by {seat.name}: {refusal}")
                    again = bool(token) and dice.random() < 0.5
                else:
                    again = bool(token) and dice.random() < 0.5
                if haunts:
                    self.begin(self._haunt(line), f"ghost of {self.name}")
                else:
                    line.hang_up()

    async def _visit(self, line: Line, token: bytes, grace_s: float) -> None:
        dice = self.dice
        tag = -1
        if token:
            listing = await self.answered(line.name_owner(token, grace_s))
            line.named = token
            self._back({id_ for id_, _, _, _ in listing}, grace_s)
            for id_, kind, held_tag, _ in listing:
                job = self.world.history.jobs[id_]
                if held_tag >= 0:
                    again = await self.answered(line.new(kind, [self.record()], held_tag))
                    # Idle, it may have been taken away meanwhile; without records it is gone then.
                    taken = (id_.seq, 0) in self.world.witness.stored_ms or id_.seq not in self.world.witness.ids
                    if again is not job and not taken:
                        self.world.witness.complain(f"tag {held_tag} means {id_}, and a New with it opens {again.id}")
                if dice.random() < 0.8:
                    await self._work(line, job)
        for _ in range(dice.choice((1, 1, 2, 4))):
            if self.world.over or not self._left:
                return
            self._left -= 1
            kind = dice.choice(self.world.kinds)
            if token and dice.random() < 0.6:
                self.world.tags += 1
                tag = self.world.tags
            records = [self.record() for _ in range(dice.choice((0, 1, 1, 2)))]
            sent_s = self._now_s()
            job = await self.answered(line.new(kind.number, records, tag))
            self._sure_s = self._held[job] = sent_s
            await self._work(line, job)

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()

    def _back(self, listed: set[Index], grace_s: float) -> None:
        """By the client's own rule (`truba.client.resume`): who comes back in time finds all that it has not ended."""
        now_s, history = self._now_s(), self.world.history
        for job, sent_s in list(self._held.items()):
            if job.id in listed:
                self._held[job] = now_s
                self._ending.pop(job, None)
                continue
            del self._held[job]
            op = self._ending.pop(job, None)
            if not (in_time(now_s, self._sure_s, grace_s) and in_time(now_s, sent_s, grace_s)):
                continue
            if op is None:
                self.world.witness.complain(f"{self.name} is back in time, and {job.id} was taken from it")
            else:
                history.concluded(job, op)

    async def _work(self, line: Line, job: Job) -> None:
        """A few steps, one at a time or all at once, and an end, or none."""
        dice = self.dice
        self._mine.append(job)
        patient = dice.random() < 0.6
        steps: list[tuple[Op, float]] = []
        for _ in range(dice.choice((0, 1, 2, 3))):
            if dice.random() < 0.25:
                steps.append((Op("replace", [self.record()]), 0))
            else:
                steps.append((Op("append", [self.record() for _ in range(dice.choice((1, 1, 2)))]), 0))
        match dice.choices(("delete", "store", "fail", "away"), (50, 20, 10, 20))[0]:
            case "delete":
                steps.append((Op("delete"), 0))
            case "store":
                steps.append((Op("store"), dice.choice((0.0, 0.5, 2.0, 6.0))))
            case "fail":
                steps.append((Op("fail"), 0))
        answers = []
        for op, delay_s in steps:
            ends = op.verb not in ("append", "replace")
            sent_s = self._now_s()
            if ends and patient and job in self._held:
                self._ending[job] = op
            elif ends:
                self._held.pop(job, None)
            answers.append(line.operate(job, 0, op, delay_s, exact=dice.random() < 0.2))
            if patient:
                await self.answered(answers[-1])
                self._sure_s = sent_s
                if ends:
                    self._held.pop(job, None)
                    self._ending.pop(job, None)
                elif job in self._held:
                    self._held[job] = sent_s
                await asyncio.sleep(dice.expovariate(1 / self.pace_s))
        for answer in answers:
            await self.answered(answer)

    async def _haunt(self, line: Line) -> None:
        """It was given up for dead, and goes on: on a connection whose sessions another may hold by now."""
        for _ in range(self.dice.choice((1, 3))):
            await asyncio.sleep(self.dice.expovariate(1.0))
            if line.ended_here or not self._mine:
                break
            self._held, self._ending = {}, {}  # whoever comes back knows no more what it may expect
            verb: Literal["append", "delete"] = self.dice.choice(("append", "delete"))
            op = Op(verb, [self.record()] if verb == "append" else [])
            line.operate(self.dice.choice(self._mine[-5:]), 0, op)
        await asyncio.sleep(0.1)
        line.hang_up()


class Service(Person):
    """Handles the sessions of one kind, for whichever nodes dial it. `mood`: how well. `token`: its name, if any."""

    def __init__(self, world: StormWorld, kind: Kind, token: bytes = b"") -> None:
        super().__init__(world, kind.name)
        self.kind = kind
        self.token = token
        self.credit = self.dice.choice((1, 3, 100))
        self.mood: Literal["fine", "dead", "silent", "failing", "clumsy", "shy"] = "fine"
        self.taken = 0

    @property
    def up(self) -> bool:
        return self.mood != "dead"

    def refuses(self) -> bool:
        return self.mood == "shy" and self.dice.random() < 0.5

    def greet(self, link: Link, line: Line) -> None:
        """A node has dialled."""
        self.begin(self._greet(link, line), f"{self.name} greets {line.seat.name}")

    async def _greet(self, link: Link, line: Line) -> None:
        try:
            if self.token:
                for id_, _, _, _ in await self.answered(line.name_owner(self.token, 4.0)):
                    job = self.world.history.jobs[id_]
                    self.begin(self._work(line, job, job.epoch), f"{self.name} goes on with {id_}")
            await self.answered(line.ask(lambda node, owner: None, lambda _: link.serve(line)))
        except (Broken, OperationError):
            line.hang_up()

    def take(self, line: Line, id_: Index, epoch: int) -> None:
        """A session is handed over."""
        self.taken += 1
        job = self.world.history.jobs.get(id_)
        if job is not None:
            self.begin(self._work(line, job, epoch), f"{self.name} works on {id_}")

    async def _work(self, line: Line, job: Job, epoch: int) -> None:
        dice, world = self.dice, self.world
        await asyncio.sleep(dice.expovariate(20))
        mood = self.mood if dice.random() < 0.8 else "fine"
        if mood == "dead" or (mood == "silent" and not world.healed):
            return
        try:
            while dice.random() < 0.3 and not world.healed:
                op = Op("append", [self.record()]) if dice.random() < 0.7 else Op("replace", [self.record()])
                await self.answered(line.operate(job, epoch, op, exact=dice.random() < 0.5))
            if mood == "clumsy" and not world.healed:
                line.hang_up()
                return
            end, delay_s = Op("delete"), 0.0
            if not world.healed:
                if mood == "failing" or dice.random() < 0.1:
                    end = Op("fail")
                elif dice.random() < 0.15:
                    end, delay_s = Op("store"), dice.choice((0.2, 1.5))
            await self.answered(line.operate(job, epoch, end, delay_s, exact=world.healed or dice.random() < 0.5))
        except Broken:
            line.hang_up()
        except OperationError as refusal:
            world.story.tell(self.name, f"is refused by {line.seat.name}: {refusal}")


class Operator(Person):
    """Looks at what is unfinished, and now and then resumes or removes some of it; pauses kinds, and continues them."""

    async def intervene(self, *, remove: bool) -> None:
        seat = self.world.find_door(self.dice)
        if seat is None or (node := seat.node) is None:
            return
        waiting = [head.id for head in node.machine.scan() if head.phase in (Phase.STORED, Phase.PARKED)]
        if waiting:
            line = Line(self.world, seat, node, self.name)
            self.begin(self._ask(line, self.dice.choice(waiting), remove), self.name)

    async def _ask(self, line: Line, id_: Index, remove: bool) -> None:
        try:
            await self.answered(self._remove(line, id_) if remove else self.resume(line, id_))
        except Broken:
            pass
        except OperationError as refusal:
            self.world.story.tell(self.name, f"is refused by {line.seat.name}: {refusal}")
        finally:
            line.hang_up()

    def steer(self, kind: int, *, on: bool) -> None:
        """Pause a kind, or continue it."""
        seat = self.world.find_door(self.dice)
        if seat is not None and seat.node is not None:
            self.begin(self._steer(seat, seat.node, kind, on), self.name)

    async def _steer(self, seat: StormSeat, node: Node, kind: int, on: bool) -> None:
        line = Line(self.world, seat, node, self.name)
        steering = Steering(kind, on, self.world.loop.time())

        def durable(_: None) -> None:
            self.world.story.tell(self.name, f"is answered by {seat.name}: {'pause' if on else 'continue'} {kind}")
            steering.answered_s = self.world.loop.time()

        self.world.history.steerings.append(steering)
        try:
            await self.answered(line.ask(lambda node, owner: node.operators.pause(kind, on), durable))
        except (Broken, OperationError):
            pass
        finally:
            line.hang_up()

    async def continue_all(self, seat: StormSeat, kinds: set[int]) -> None:
        """Nothing of these kinds stays paused; who is not answered is asked again in another round."""
        if (node := seat.node) is not None:
            for kind in sorted(kinds):
                await self._steer(seat, node, kind, on=False)

    def resume(self, line: Line, id_: Index) -> asyncio.Future[None]:
        return line.ask(
            lambda node, owner: node.operators.resume(id_),
            lambda _: self.world.story.tell(self.name, f"is answered by {line.seat.name}: resume {id_}"),
        )

    def _remove(self, line: Line, id_: Index) -> asyncio.Future[None]:
        op, history = Op("remove"), self.world.history
        job = history.jobs[id_]  # somebody has opened it, or it would not be there

        def decide(node: Node, owner: Owner) -> None:
            node.operators.remove(id_)
            history.removing(job, op, node)

        def durable(_: None) -> None:
            self.world.story.tell(self.name, f"is answered by {line.seat.name}: remove {id_}")
            history.removed(job, op, line.seat)

        return line.ask(decide, durable)

    async def resume_all(self, seat: StormSeat, kinds: set[int]) -> None:
        """Everything of these kinds that waits is due now."""
        node = seat.node
        if node is None:
            return
        line = Line(self.world, seat, node, self.name)
        try:
            for head in list(node.machine.scan()):
                if head.kind in kinds and head.phase in (Phase.STORED, Phase.PARKED):
                    await self.answered(self.resume(line, head.id))
        except (Broken, OperationError):
            pass  # it was handed over meanwhile, or the node went: there is another round
        finally:
            line.hang_up()
