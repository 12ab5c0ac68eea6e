"""What no cluster can live with: its stream loses what was acknowledged. Every node that knows stops, and says so; what
is on the nodes' own disks then makes the stream anew, and nothing is lost.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.cluster.storms.history import Op
from tests.cluster.storms.lines import Broken, Line
from tests.cluster.storms.witness import LINKS, WatchedSea
from truba.cluster.seed import salvage, seed
from truba.errors import LogRegression, OperationError
from truba.log.memory import MemoryLog
from truba.streams.memory import MemoryStream

if TYPE_CHECKING:
    from tests.cluster.storms.world import StormWorld

LOOKED_S = 45.0
"""Enough for a leader that waits for its stream to give up, and for a follower to look as often as it does."""


async def disaster(world: StormWorld) -> None:
    """The stream goes back, or is gone; then it is made anew."""
    dice, story, sea = world.dice, world.story, world.sea
    await _work(world)
    await world.agreed()
    if world.ruined:
        return
    world.disaster = dice.choice(("goes back", "goes back", "goes back", "is gone"))
    for seat in world.seats.values():
        if dice.random() < 0.4:
            await seat.kill()
    if world.disaster == "goes back" and (lost := sea.lose(dice.choice((1, 2, 3, 5)))):
        story.tell("disaster", f"the stream loses its last {lost} messages")
    else:
        sea.gone = True
        story.tell("disaster", "the stream is gone")
    for seat in world.seats.values():
        if not seat.alive:
            seat.start()
        seat.spoilt = "the stream has gone back"
    end_s = world.loop.time() + LOOKED_S
    while world.loop.time() < end_s and not world.ruined:
        await _work(world)
        await asyncio.sleep(1.0)
    for seat in world.seats.values():
        if not (seat.task is not None and seat.task.done() and _regressed(seat.task)):
            world.witness.complain(
                f"the stream has lost what {seat.name} has in its own log, and it goes on: {'; '.join(world.stands())}"
            )
    if not world.ruined:
        await _reseed(world)
        await world.agreed()


def _regressed(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and isinstance(task.exception(), LogRegression)


async def _work(world: StormWorld) -> None:
    """A few sessions that sleep for long, wherever somebody lets clients in."""
    seat = world.find_door(world.dice)
    if seat is None or (node := seat.node) is None:
        return
    line = Line(world, seat, node, "operator")
    person = world.operator
    try:
        for _ in range(world.dice.choice((1, 3))):
            job = await person.answered(line.new(7, [person.record()]))
            await person.answered(line.operate(job, 0, Op("append", [person.record()])))
            await person.answered(line.operate(job, 0, Op("store"), 10_000.0))
    except (Broken, OperationError):
        pass
    finally:
        line.hang_up()


async def _reseed(world: StormWorld) -> None:
    """As `truba cluster reseed` does, on the node whose log is the longest."""
    for seat in world.seats.values():
        seat.ended()
    seat = max(world.seats.values(), key=lambda seat: seat.disk.log.tail.seq)
    world.story.tell("disaster", f"the stream is made anew from the log of {seat.name}, {seat.disk.log.tail[:2]}")
    own = MemoryLog(seat.disk.shelf)
    if not world.sea.gone:
        await salvage(MemoryStream(world.sea), LINKS, own, lambda message: None)
    fresh = WatchedSea()
    fresh.chains, fresh.term = world.sea.chains, world.sea.term
    world.sea = world.witness.sea = fresh
    await seed(MemoryStream(fresh), LINKS, own, seat.disk.shelf.begin, seat.name, lambda _: None)
    seat.disk.reopen()
    for each in world.seats.values():
        each.start()
