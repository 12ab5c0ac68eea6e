"""Another configuration for a pipe that goes on: read, compared, and taken as a whole or not at all.

The node is asked before anything is changed, and everything is changed in one turn of the loop: no session is decided
by half of the one and half of the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import structlog

from truba import logs
from truba.compose import check_kinds, make_hooks, make_routes
from truba.config import Config
from truba.config.changes import Change, changes
from truba.configured import hook_makers_of, kinds_of, transports_of, users_of, ways_of
from truba.errors import ConfigError
from truba.kinds import Kind
from truba.machine.machine import Machine
from truba.node.node import Node
from truba.ports.transport import Route
from truba.signals import ReloadSignals
from truba.users import Users
from truba.wire.connection import WireSettings

log = structlog.get_logger("truba.reload")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What changed, or would. `sessions`: by name of each kind that a change touches, phase -> how many it has now."""

    applied: bool
    changes: tuple[Change, ...]
    sessions: Mapping[str, Mapping[str, int]]


class Reloader:
    """`config`: the one in force. `read`: the file anew. `machine`, `node`: as they are now, None where there is none.
    `taken`: called with each configuration that is taken, in the same turn of the loop."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        settings: WireSettings,
        machine: Callable[[], Machine | None],
        node: Callable[[], Node | None],
        taken: Callable[[Config], None] = lambda _config: None,
    ) -> None:
        self.config = config
        self._read = read
        self._settings = settings
        self._machine = machine
        self._node = node
        self._taken = taken
        self._ways = ways_of(config, kinds_of(config))
        self._one_at_a_time = asyncio.Lock()

    async def reload(self, *, apply: bool = True) -> Reloaded:
        """Take what the file says now; `apply` False: say only what that would be.

        ConfigError: the file cannot be taken, and why. Busy: a kind that goes has sessions. Nothing was changed then.
        """
        async with self._one_at_a_time:
            config = await asyncio.to_thread(self._read)
            found = tuple(changes(self.config, config))
            stuck = [change.key for change in found if not change.live]
            if bool(self.config.users) != bool(config.users):
                stuck.append("users (the first, or the last)")
            if stuck:
                raise ConfigError(f"only a restart takes another {', '.join(stuck)}; nothing was changed")
            kinds = kinds_of(config)
            check_kinds(kinds)
            routes = make_routes(kinds, transports_of(config, self._settings))
            hooks = make_hooks(kinds, hook_makers_of(config))
            users, ways = users_of(config), ways_of(config, kinds)
            machine, node = self._machine(), self._node()
            # No turn of the loop from here on.
            if machine is not None:
                machine.refuse_to_lose(kinds)
            report = Reloaded(apply, found, self._touched(found, machine, config))
            if apply:
                if node is not None:
                    node.reconfigure(kinds, self._kept(node, ways, routes), hooks)
                    node.limits = replace(node.limits, grace_max_s=config.node.grace_max)
                authenticator = self._settings.authenticator
                if isinstance(authenticator, Users):
                    authenticator.replace(users)
                if config.node.log_level != self.config.node.log_level:
                    logs.configure(config.node.log_level, config.node.log_format)
                self.config, self._ways = config, ways
                self._taken(config)
            return report

    async def on_signal(self) -> None:
        """The same for who hears of it by the log."""
        try:
            report = await self.reload()
        except Exception as error:  # also what only a kind's own handler module raises: the pipe goes on as it was
            log.error(
                "configuration not reloaded",
                error=str(error),
                outcome="nothing was changed",
                next="mend the file, then send SIGHUP again; truba check says what is wrong with it",
            )
            return
        told = [f"{change.key}: {change.before} -> {change.after}" for change in report.changes]
        log.info("configuration reloaded", changes=told, sessions=report.sessions)

    def _kept(self, node: Node, ways: Mapping[int, object], routes: Mapping[int, Route]) -> dict[int, Route]:
        """A route that would be as it is stays, with its connections."""
        return {
            number: node.dispatcher.lanes[number].route if self._ways.get(number) == ways[number] else route
            for number, route in routes.items()
        }

    def _touched(self, found: tuple[Change, ...], machine: Machine | None, config: Config) -> dict[str, dict[str, int]]:
        if machine is None:
            return {}
        kinds: dict[str, Kind] = {
            kind.name: kind for kind in (*config.kinds, *self.config.kinds)
        }  # what there is counts
        names = dict.fromkeys(change.path[1] for change in found if change.path[0] == "kinds")
        return {
            name: {phase.value: count for phase, count in machine.population(kinds[name].number).items()}
            for name in names
        }


@contextmanager
def reloading(reloader: Reloader | None, signals: ReloadSignals | None = None) -> Iterator[None]:
    """On SIGHUP, within the block; and at its beginning if one came before, of a process that listened for it."""
    if reloader is None:
        yield
        return
    loop = asyncio.get_running_loop()
    under_way: set[asyncio.Task[None]] = set()

    def begin() -> None:
        task = loop.create_task(reloader.on_signal(), name="reload")
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    try:
        with (signals or ReloadSignals()).calling(begin):
            yield
    finally:
        for task in under_way:
            task.cancel()
