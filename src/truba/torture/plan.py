"""How the pipe of a round is configured, and the commands of all who take part."""

from __future__ import annotations

import random
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from truba.testing.ports import free_ports
from truba.torture import client, handler
from truba.torture.kept import Kept

CONFIG = """\
[node]
data = "data"
listen = "127.0.0.1:{port}"
segment = "{segment}"
checkpoint = "{checkpoint}"
reserve = "16MiB"
stop_timeout = "2s"
log_format = "json"

[kinds.swift]
number = 7
handler = "truba://127.0.0.1:{ports[7]}"
recovery_delay = "0s"
jitter = "100ms"
backoff = {{ base = "50ms", factor = 2, cap = "500ms" }}
max_attempts = {attempts_max[7]}
max_age = 0
handler_timeout = "700ms"
idle_timeout = "1s"
concurrency = 16

[kinds.patient]
number = 8
handler = "truba://127.0.0.1:{ports[8]}"
recovery_delay = "400ms"
jitter = "0s"
backoff = {{ base = "100ms", factor = 2, cap = "1s" }}
max_attempts = {attempts_max[8]}
max_age = 0
handler_timeout = "1500ms"
idle_timeout = "2s"
concurrency = 64
"""

RECOVERY_DELAY_S = {7: 0.0, 8: 0.4}
ATTEMPTS_MAX = {7: 0, 8: 3}
HANDLER_TIMEOUT_S = {7: 0.7, 8: 1.5}
"""By kind, as above."""

STORE_S_MAX = 1.5
CLIENTS = 3
SESSIONS_EACH = 8
GRACES_S = (0.0, 0.5, 2.0)
TIMEOUTS_S = (0.5, 3.0, 30.0)


@dataclass(frozen=True, slots=True)
class Plan:
    directory: Path
    seed: int
    dice: random.Random
    url: str
    ports: dict[int, int]
    """Of the handlers, by kind."""
    pipe_command: Sequence[str]

    @classmethod
    def make(cls, directory: Path, seed: int, dice: random.Random, pipe_command: Sequence[str]) -> Plan:
        port, *rest = free_ports(1 + len(HANDLER_TIMEOUT_S))
        ports = dict(zip(HANDLER_TIMEOUT_S, rest, strict=True))
        (directory / "truba.toml").write_text(
            CONFIG.format(
                port=port,
                ports=ports,
                attempts_max=ATTEMPTS_MAX,
                segment=dice.choice(("128KiB", "1MiB")),
                checkpoint=dice.choice(("64KiB", "256KiB", "1MiB")),  # several in a second
            )
        )
        plan = cls(directory, seed, dice, f"truba://127.0.0.1:{port}", ports, pipe_command)
        plan.journals.mkdir()
        return plan

    @property
    def journals(self) -> Path:
        return self.directory / "journals"

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _pause_s(self, most_s: float) -> Callable[[], float]:
        """Not from the round's dice: when a process dies depends on the machine, and harm should not."""
        dice = random.Random(self.dice.random())
        return lambda: dice.uniform(0, most_s)

    def pipe(self) -> Kept:
        command = (*self.pipe_command, "serve", "--config", str(self.directory / "truba.toml"))
        return Kept("pipe", "pipe", self._log("pipe"), lambda name: command, self._pause_s(0.3))

    def clients(self) -> list[Kept]:
        return [self._client(number) for number in range(CLIENTS)]

    def handlers(self, *, finishing: bool) -> list[Kept]:
        return [self._handler(kind, finishing) for kind in self.ports]

    def _client(self, number: int) -> Kept:
        grace_s, timeout_s = self.dice.choice(GRACES_S), self.dice.choice(TIMEOUTS_S)
        token = secrets.token_hex(16)

        def command(name: str) -> Sequence[str]:
            setup = client.Setup(
                name=name,
                journal=str(self.journals / f"{name}.jsonl"),
                url=self.url,
                token=token,
                grace_s=grace_s,
                timeout_s=timeout_s,
                kinds=tuple(self.ports),
                seed=self.seed,
                sessions=SESSIONS_EACH,
                store_s_max=STORE_S_MAX,
            )
            return sys.executable, "-m", client.__name__, msgspec.json.encode(setup).decode()

        pause_s = self._pause_s(max(0.2, 1.5 * grace_s))  # back within the grace, or after it
        return Kept("client", f"c{number}", self._log(f"c{number}"), command, pause_s)

    def _handler(self, kind: int, finishing: bool) -> Kept:
        own = f"{'f' if finishing else 'h'}{kind}"

        def command(name: str) -> Sequence[str]:
            setup = handler.Setup(
                name=name,
                journal=str(self.journals / f"{name}.jsonl"),
                listen=f"127.0.0.1:{self.ports[kind]}",
                url=self.url,
                kind=kind,
                seed=self.seed,
                timeout_s=HANDLER_TIMEOUT_S[kind],
                store_s_max=STORE_S_MAX,
                finishing=finishing,
            )
            return sys.executable, "-m", handler.__name__, msgspec.json.encode(setup).decode()

        return Kept("handler", own, self._log(own), command, self._pause_s(0.3))
