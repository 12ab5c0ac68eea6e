"""What a seed makes of a run: kinds, clients, handlers, the network, the disk, and which faults there are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from tests.simulation.clients import Habits
from truba.kinds import Backoff, Breaker, Kind
from truba.node.presence import LOST_AT_ONCE
from truba.wire.connection import WireSettings

RECORD_BYTES_MAX = 4_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Chosen once, at the beginning."""

    seed: int
    storm_s: float
    latency_s: float
    disk_s: float  # mean time that a write with its sync takes; 0: none at all
    kinds: tuple[Kind, ...]
    services: tuple[tuple[str, tuple[int, ...], float, float], ...]  # name, kinds, mischief, grace
    clients: tuple[Habits, ...]
    segment_bytes: int
    reserve_bytes: int
    checkpoint_bytes: int
    batch_bytes_max: int
    window: int  # batches under way at once
    tight_disk: bool
    commit_faults: float
    commit_deaths: float
    store_s: float  # the longest time that anybody says with Store
    pause_s: float  # mean time between two faults
    at_once: int  # sessions taken over, or given back, in one turn of the loop
    turn_s: float  # that a turn of the loop takes
    steer_s: float  # mean time between two words of an operator who pauses and continues kinds; 0: there is none
    faults: tuple[str, ...]
    wire: WireSettings
    record_bytes_max: int = RECORD_BYTES_MAX

    def __str__(self) -> str:
        kinds = ", ".join(
            f"kind {kind.number} (attempts {kind.max_attempts}, handler_timeout {kind.handler_timeout_s:g} s,"
            f" idle {kind.idle_timeout_s:g} s, recovery {kind.recovery_delay_s:g} s, concurrency {kind.concurrency},"
            f" breaker {kind.breaker.failures})"
            for kind in self.kinds
        )
        clients = ", ".join(f"grace {each.grace_s:g} s" if each.token else "no token" for each in self.clients)
        return (
            f"seed {self.seed}: {self.storm_s:.1f} s of storm; {kinds}; clients: {clients}; segments of"
            f" {self.segment_bytes} bytes, checkpoints every {self.checkpoint_bytes}; faults: {' '.join(self.faults)}"
        )


FAULTS = (
    "cut",
    "cut",
    "kill",
    "power",
    "die in call",
    "restart",
    "disk error",
    "clock",
    "freeze",
    "handler",
    "mute",
    "full",
    "operator",
)


def make_plan(seed: int) -> Plan:
    """The plan of that seed."""
    dice = Random(f"plan {seed}")
    kinds = tuple(_kind(dice, number) for number in range(1, dice.choice((1, 2, 2, 3)) + 1))
    shared = len(kinds) == 3 and dice.random() < 0.5
    groups = [(kinds[0].number, kinds[1].number), (kinds[2].number,)] if shared else [(kind.number,) for kind in kinds]
    services = tuple(
        (f"handler-{numbers[0]}", numbers, dice.choice((0.1, 0.4, 0.8)), dice.choice((0.0, 0.0, 0.5, 4.0)))
        for numbers in groups
    )
    breakers = Random(f"breakers {seed}")
    kinds = tuple(
        replace(
            kind,
            handler=f"truba://{next(name for name, numbers, _, _ in services if kind.number in numbers)}:1",
            breaker=Breaker(breakers.choice((2, 3, 10)), breakers.choice((0.0, 0.5)), breakers.choice((2.0, 30.0))),
        )
        for kind in kinds
    )
    slices = Random(f"slices {seed}")
    faults = tuple(dict.fromkeys(dice.choice(FAULTS) for _ in range(dice.randint(0, 7))))
    tight = "full" in faults
    segment_bytes = 512 * dice.choice((8, 8, 16, 32))
    return Plan(
        seed=seed,
        storm_s=dice.choice((4.0, 8.0, 8.0, 15.0)),
        latency_s=dice.choice((0.0005, 0.002, 0.02)),
        disk_s=dice.choice((0.0, 0.0, 0.002, 0.02)),
        kinds=kinds,
        services=services,
        clients=tuple(_habits(dice, number) for number in range(dice.choice((1, 2, 3, 4)))),
        segment_bytes=segment_bytes,
        reserve_bytes=segment_bytes if tight else 0,
        checkpoint_bytes=dice.choice((2_000, 8_000, 8_000, 30_000, 1 << 20)),
        batch_bytes_max=dice.choice((200, 4_000, 1 << 20)),
        window=dice.choice((1, 1, 4)),
        tight_disk=tight,
        commit_faults=dice.choice((0.0, 0.0, 0.1)),
        commit_deaths=dice.choice((0.0, 0.1, 0.3)),
        store_s=dice.choice((0.5, 3.0, 10.0)),
        pause_s=dice.choice((0.3, 1.0, 1.0, 2.0)),
        at_once=slices.choice((1, 1, 2, LOST_AT_ONCE)),
        turn_s=slices.choice((0.0, 0.0, 0.0001, 0.001)),
        steer_s=Random(f"steering {seed}").choice((0.0, 0.0, 1.0, 3.0)),
        faults=faults,
        wire=WireSettings(output_bytes_max=dice.choice((1_000, 1 << 20))),
    )


def _kind(dice: Random, number: int) -> Kind:
    return Kind(
        number,
        f"kind-{number}",
        "",
        recovery_delay_s=dice.choice((0.0, 0.5, 2.0)),
        jitter_s=dice.choice((0.0, 0.5)),
        backoff=Backoff(dice.choice((0.0, 0.1, 1.0)), dice.choice((1.0, 2.0)), dice.choice((1.0, 3.0))),
        max_attempts=dice.choice((0, 2, 5, 25)),
        max_age_s=dice.choice((0.0, 0.0, 0.0, 5.0)),
        handler_timeout_s=dice.choice((0.3, 1.0, 3.0)),
        idle_timeout_s=dice.choice((0.5, 3.0, 60.0)),
        concurrency=dice.choice((1, 2, 8)),
        record_bytes_max=RECORD_BYTES_MAX,
    )


def _habits(dice: Random, number: int) -> Habits:
    token = b"token of client %d" % number if dice.random() < 0.65 else b""
    return Habits(
        token=token,
        grace_s=dice.choice((0.0, 0.5, 2.0, 8.0)) if token else 0.0,
        think_s=dice.choice((0.1, 0.3, 0.3, 1.0)),
        burst_max=dice.choice((1, 3, 6)),
        careless=dice.choice((0.0, 0.05, 0.2)),
        finishing=dice.choice((0.2, 0.5, 0.9)),
        large=dice.choice((0.0, 0.05, 0.3)),
    )
