"""Handler services that finish, go on later, give back, keep silent, write too late, and die after any message."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import hiredis

from tests.simulation.checker import Call
from tests.simulation.peers import Peer

if TYPE_CHECKING:
    from tests.simulation.world import World


class Service:
    """One handler service at an address that the pipe dials; serves the kinds of its route."""

    def __init__(
        self, world: World, name: str, port: int, kinds: list[int], dice: Random, mischief: float, grace_s: float
    ) -> None:
        self.world = world
        self.name = name
        self.port = port
        self.kinds = kinds
        self.dice = dice
        self.mischief = mischief  # how often it does something else than finish
        self.grace_s = grace_s  # above 0: it has a token, and comes back for what it held
        self.holds: dict[str, tuple[int, int]] = {}  # as it believes: session -> epoch, kind
        self.mute = False  # takes connections and says nothing
        self.up = False
        self._count = 0
        self._peers: list[Peer] = []

    def start(self) -> None:
        if not self.up:
            self.up = True
            self.world.network.listen(self.name, self.port, self._accept)

    def stop(self, *, farewell: bool) -> None:
        """It dies, or is shut down."""
        self.up = False
        self.world.network.close(self.name, self.port)
        for peer in list(self._peers):
            peer.hang_up(farewell=farewell)

    def kick(self) -> None:
        """Connections on which it never said a word end."""
        for peer in list(self._peers):
            if not peer.spoke:
                peer.hang_up(farewell=False)

    def _accept(self) -> Peer:
        self._count += 1
        peer = Peer(self.world, self.name, f"{self.name}/{self._count}")
        peer.on_push = lambda push: self._pushed(peer, push)
        peer.on_lost = lambda: self._peers.remove(peer)
        self._peers.append(peer)
        return peer

    def _pushed(self, peer: Peer, push: list[Any]) -> None:
        match push[0]:
            case b"hello":
                if not self.mute:
                    peer.spoke = True
                    self.world.spawn(self._greet(peer), f"{self.name} greets")
            case b"lost":
                _, session, epoch, cause = push
                self.world.story.tell(self.name, f"loses {session.decode()}@{epoch}", cause.decode())
                self._over(session.decode(), epoch)
            case b"repeat":
                _, session, epoch, kind, attempt, _, cause, *records = push
                world, name = self.world, session.decode()
                world.story.tell(self.name, f"is handed {name}@{epoch}", cause.decode(), "attempt", attempt, records)
                world.checker.delivered(
                    name, epoch, kind, attempt, cause.decode(), records, world.clock.steady_s, self.grace_s
                )
                self.holds[name] = (epoch, kind)
                world.spawn(self._handle(peer, name, epoch, kind), f"{self.name} {name}@{epoch}")

    async def _greet(self, peer: Peer) -> None:
        """Say who it is, take up what it held, and ask for more."""
        world = self.world
        if self.grace_s:
            asked_s = world.clock.steady_s
            answer = await peer.ask(b"OWNER", b"token of " + self.name.encode(), b"GRACE", b"%g" % self.grace_s)
            if answer is None:
                return
            if isinstance(answer, hiredis.ReplyError):
                raise AssertionError(f"OWNER was refused: {answer}")
            held = [(session.decode(), kind, tag, operations) for session, kind, tag, operations in answer]
            world.story.tell(self.name, "holds", *(f"{session}:{operations}" for session, _, _, operations in held))
            believed = [(session, epoch) for session, (epoch, _) in self.holds.items()]
            world.checker.listed(self.name, asked_s, world.clock.steady_s, held, believed)
            listed = {session for session, _, _, _ in held}
            self.holds = {session: hold for session, hold in self.holds.items() if session in listed}
            for session, (epoch, kind) in self.holds.items():
                world.spawn(self._handle(peer, session, epoch, kind), f"{self.name} {session}@{epoch}")
        if not peer.lost:
            credit = 1 + int(self.dice.random() * 8)
            await peer.ask(b"KINDS", *(b"%d" % kind for kind in self.kinds), b"CREDIT", b"%d" % credit)

    def _over(self, session: str, epoch: int) -> None:
        if self.holds.get(session, (0, 0))[0] == epoch:
            del self.holds[session]

    async def _handle(self, peer: Peer, session: str, epoch: int, kind: int) -> None:
        dice, world = self.dice, self.world
        if dice.random() < 0.6:
            await asyncio.sleep(0.05 * dice.random())
        if world.calm or dice.random() >= self.mischief:
            await self._say(peer, session, epoch, "delete")
            return
        for _ in range(5):
            match dice.choice(
                ("append", "append", "replace", "store", "fail", "delete", "silent", "late", "die", "touch")
            ):
                case "silent":
                    return
                case "late":
                    # Longer than it may; and whoever was thought dead goes on as if nothing had happened.
                    await world.during_storm(world.kinds[kind].handler_timeout_s * (0.8 + dice.random()))
                case "die":
                    if not peer.lost:
                        peer.hang_up(farewell=dice.random() < 0.3)
                    return
                case verb:
                    if await self._say(peer, session, epoch, verb) or dice.random() < 0.1:
                        return

    async def _say(self, peer: Peer, session: str, epoch: int, verb: str) -> bool:
        """Send one operation; whether the session is over for this handler."""
        if peer.lost:
            return True
        dice, world = self.dice, self.world
        records: tuple[bytes, ...] = ()
        if verb in ("append", "replace"):
            records = (world.record(dice, 0.05),)
        call = Call(
            self.name, peer.link, session, epoch, verb, world.clock.steady_s, records,
            refusable=world.plan.tight_disk and bool(records),
        )  # fmt: skip
        if verb == "store":
            call.seconds = round(world.plan.store_s * dice.random() ** 2, 3)
        peer.call(call)
        await peer.answer_to(call)
        if call.outcome in ("FENCED", "NOSESSION", "CLOSED") or (
            call.outcome == "ok" and verb in ("delete", "store", "fail")
        ):
            self._over(session, epoch)
        return call.outcome != "ok" or verb in ("delete", "store", "fail")
