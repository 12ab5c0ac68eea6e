"""Rounds by seed, one after the other, until the time is over or something was found."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truba.errors import DataUnwritable
from truba.torture.harm import Harm
from truba.torture.round import HARMED_S, PIPE, Finding, TortureFailed, play
from truba.torture.story import story

FREE_BYTES_MIN = 512 << 20
"""A round takes a tenth of it; the pipe's own reserve, and whoever else writes there, come on top."""

STORIES_MAX = 3
"""Findings of one round that are told whole: the others have the same cause as a rule."""


@dataclass(slots=True)
class Report:
    """What came of all rounds."""

    seed: int
    rounds: int = 0
    took_s: float = 0.0
    worked_s: float = 0.0
    """Of it, how long clients were at work."""
    harm: Harm = field(default_factory=Harm)
    outcomes: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    deliveries: int = 0
    failed_seed: int | None = None
    findings: list[Finding] = field(default_factory=list)
    kept: Path | None = None
    """Where everything of the failed round is."""

    @property
    def acknowledged_per_s(self) -> float:
        return self.outcomes["ok"] / self.worked_s if self.worked_s else 0.0

    @property
    def command(self) -> str:
        """What plays the failed round again. The same acts of harm; what they hit depends on the machine, too."""
        return f"truba torture --seed {self.failed_seed} --time 1s {self.kept.parent.parent if self.kept else 'DIR'}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "rounds": self.rounds,
            "took_s": round(self.took_s, 1),
            "kills": {part: self.harm.kills[part] for part in ("pipe", "client", "handler")},
            "kills_in_start": self.harm.kills_in_start,
            "freezes": {part: self.harm.freezes[part] for part in ("pipe", "client", "handler")},
            "stops": self.harm.stops,
            "calls": {outcome: self.outcomes[outcome] for outcome in ("ok", "refused", "unknown")},
            "acknowledged_per_s": round(self.acknowledged_per_s, 1),
            "deliveries": self.deliveries,
            "sessions_checked": self.sessions,
            "failed_seed": self.failed_seed,
            "findings": [finding.what for finding in self.findings],
            "story": list(self.story()),
            "kept": None if self.kept is None else str(self.kept),
        }

    def story(self) -> Iterator[str]:
        """Lines; none when all is well."""
        told = 0
        for finding in self.findings:
            yield finding.what
            if finding.session is not None and finding.unexplained is not None and told < STORIES_MAX:
                told += 1
                yield from (f"  {line}" for line in story(finding.session, finding.unexplained))


Tell = Callable[[Report, str, float], None]
"""Called with what came of the rounds so far, what happens now, and how many seconds have passed."""


async def run(
    directory: Path,
    seconds: float,
    seed: int,
    *,
    pipe_command: Sequence[str] = PIPE,
    harmed_s: float = HARMED_S,
    tell: Tell = lambda report, text, passed_s: None,
) -> Report:
    """At least one round, in a new directory inside that one, which stays only when something was found.

    DataUnwritable: there is no space; OSError; TortureFailed: a round could not be carried out.
    """
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES_MIN:
        raise DataUnwritable(f"{directory}: {free >> 20} MiB are free there, and {FREE_BYTES_MIN >> 20} MiB are needed")
    report = Report(seed)
    place = Path(tempfile.mkdtemp(prefix="truba-torture-", dir=directory))
    begun_s = time.monotonic()
    try:
        while not report.findings:
            one_s = time.monotonic()
            number = seed + report.rounds
            room = place / f"round-{number}"
            room.mkdir()

            def say(text: str, number: int = number) -> None:
                tell(report, f"round {number}: {text}", time.monotonic() - begun_s)

            played = await play(room, number, pipe_command=pipe_command, harmed_s=harmed_s, tell=say)
            report.rounds += 1
            report.worked_s += played.worked_s
            report.harm.add(played.harm)
            report.outcomes += played.outcomes
            report.sessions += played.sessions
            report.deliveries += played.deliveries
            now_s = time.monotonic()
            report.took_s = now_s - begun_s
            if played.findings:
                report.findings, report.failed_seed, report.kept = played.findings, number, room
                (room / "story.txt").write_text("\n".join(report.story()) + "\n")
            else:
                await asyncio.to_thread(shutil.rmtree, room)  # a long run takes no more space than a short one
            if report.took_s + (now_s - one_s) / 2 > seconds:  # of the next round, less than half would be in time
                break
    except TortureFailed as error:
        report.kept = place
        raise TortureFailed(f"{error}; all is kept in {place}") from error
    finally:
        if report.kept is None:
            await asyncio.to_thread(shutil.rmtree, place)
    return report
