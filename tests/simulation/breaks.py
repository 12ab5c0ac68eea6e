"""Bugs on purpose: small edits of the pipe's own source, in this process only, that the simulation must notice.

`python -m tests.simulation --break NAME` plays seeds with the bug in place; `--breaks all` goes through them.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType


@dataclass(frozen=True, slots=True)
class Edit:
    where: str  # module:function
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Break:
    name: str
    edits: tuple[Edit, ...]
    rare: bool = False  # needs hundreds of seeds


def _break(name: str, *edits: tuple[str, str, str], rare: bool = False) -> Break:
    return Break(name, tuple(Edit(*edit) for edit in edits), rare)


BREAKS = {
    each.name: each
    for each in (
        # durability
        _break("no sync of a batch", ("truba.log.file:FileLog._commit", "self._fdatasync(self._fd)", "pass")),
        _break(
            "answers before the batch is durable",
            (
                "truba.wire.connection:Connection.send",
                "batch = sequencer.latest",
                "batch = None",
            ),
        ),
        _break(
            "answers though the log failed",
            ("truba.wire.connection:Connection._release", "if not durable:", "if False:"),
            rare=True,
        ),
        _break("no sync of the directory", ("truba.log.directory:Directory.sync", "self.disk.fsync(self._fd)", "pass")),
        _break(
            "what was written and not synced is believed",
            ("truba.log.opening:_mend", "if found.last < found.offset:", "if False:"),
            rare=True,
        ),
        _break(
            "a torn tail is not cut",
            ("truba.log.opening:_mend", "if found.cut is not None:", "if False:"),
            rare=True,
        ),
        _break(
            "a failed write is called a success",
            ("truba.log.file:FileLog.append", "done(self._poisoned())", "self._failure = None; done(None)"),
        ),
        _break(
            "the log is trimmed beyond the checkpoint",
            (
                "truba.node.checkpoint:Checkpointer._run",
                "self._log.trim(position.seq)",
                "self._log.trim(self._machine.seq)",
            ),
        ),
        _break(
            "a checkpoint does not wait for its batch",
            ("truba.node.checkpoint:Checkpointer._run", "await durable", "pass"),
            (
                "truba.node.checkpoint:Checkpointer._run",
                "else batch.position",
                "else Position(self._machine.term, batch.last_seq, tail.chain)",
            ),
        ),
        _break(
            "a checkpoint names the end of the log, not of its state",
            ("truba.node.checkpoint:Checkpointer._run", "else batch.position", "else self._log.tail"),
            rare=True,
        ),
        _break(
            "the last records are lost in recovery",
            (
                "truba.node.recovery:_recover",
                "machine.replay(batch.term, decode_batch(batch.body))",
                "x = decode_batch(batch.body); getattr(x[-1], 'records', []).clear(); machine.replay(batch.term, x)",
            ),
        ),
        _break(
            "a checkpoint forgets records of sessions that changed since",
            (
                "truba.machine.layers:Layers.thaw",
                "below.chunks = with_tail(below, self.frozen.tails.get(number, []))",
                "pass",
            ),
        ),
        # fencing
        _break(
            "owners keep what was taken, and the epoch is not checked",
            ("truba.node.owners:Owner.let_go", "hold.ended = how", "if how == 'taken': return\n    hold.ended = how"),
            *(
                (f"truba.machine.machine:Machine.{name}", "head is None or head.epoch != epoch", "head is None")
                for name in ("append", "replace", "delete", "store", "give_back")
            ),
        ),
        _break(
            "an owner that was superseded goes on",
            ("truba.node.presence:Presence._name", "before.superseded = True", "pass"),
            ("truba.node.presence:Presence._move", 'before.let_go(hold, "taken")', "pass"),
        ),
        _break(
            "a hand-over does not raise the epoch",
            ("truba.machine.machine:Machine._repeated", "head.epoch += 1", "pass"),
        ),
        _break(
            "pushed before it is durable",
            (
                "truba.node.dispatcher:Dispatcher._advance",
                "node.when_durable(_Push(node, hold, node.machine.owned[hold.number].bytes))",
                "_Push(node, hold, node.machine.owned[hold.number].bytes)(True)",
            ),
        ),
        _break(
            "an old handler's word counts when the session is on the same connection again",
            ("truba.node.owners:Owner.take_up", "if self.suspect:", "if False:"),
            ("truba.node.owners:Owner._find", "not at or hold.epoch == epoch", "True"),
        ),
        # time
        _break(
            "delivered early",
            (
                "truba.node.dispatcher:Dispatcher._hand_over",
                "now_ms = self._node.clock.now_ms()",
                "now_ms = self._node.clock.now_ms() + 300",
            ),
        ),
        _break("the alarm is not set again", ("truba.node.node:Node.rearm", "self.alarm.at(next_ms)", "pass")),
        _break(
            "a grace is not kept", ("truba.node.presence:Presence.detach", "owner.digest and owner.grace_ms", "False")
        ),
        _break(
            "owners that stay away are waited for for ever",
            ("truba.node.presence:Presence.expire", "self._away.expired(steady_ms)", "()"),
        ),
        _break(
            "silent handlers are waited for for ever",
            ("truba.node.presence:Presence.expire", "self.leases.expired(steady_ms)", "()"),
        ),
        _break(
            "handlers are late at once",
            ("truba.node.node:Node.limit_ms", "self.kinds[hold.kind].handler_timeout_s * 1000", "50"),
        ),
        _break(
            "nobody's sessions after a restart",
            ("truba.node.node:Node.start", "await self.presence.find_owners()", "pass"),
        ),
        # hand-over
        _break(
            "a dead kind holds up the others",
            (
                "truba.node.dispatcher:Dispatcher._hand_over",
                "lanes = [lane for lane in lanes if self._advance(lane, now_ms, steady_ms)]",
                "lanes = lanes if all(self._advance(lane, now_ms, steady_ms) for lane in lanes) else []",
            ),
        ),
        _break(
            "a seat is not given back",
            ("truba.node.dispatcher:KindLane.left", "del self.holds[hold]", "hold.number % 2 and self.holds.pop(hold)"),
        ),
        _break(
            "an outage uses up attempts",
            ("truba.machine.machine:Machine._leave", "head.attempts -= 1", "pass"),
            rare=True,
        ),
        _break("attempts are not counted", ("truba.machine.machine:Machine._repeated", "head.attempts += 1", "pass")),
        _break(
            "the order of due times is not kept",
            (
                "truba.machine.machine:Machine._sleep",
                "DueKey(due_ms, seq, head.number)",
                "DueKey(due_ms + seq % 3 * 2_000, seq, head.number)",
            ),
        ),
        _break(
            "a session whose handler hung up is forgotten",
            (
                "truba.node.presence:Presence._lose_slices",
                "self._node.give_back(hold, loss.cause)",
                "hold.owner.let_go(hold, 'taken')",
            ),
        ),
        _break(
            "old due times are not looked at again after a checkpoint",
            ("truba.machine.due:DueQueue.settle", "self.exhausted = False", "pass"),
        ),
        # state
        _break(
            "Replace keeps what was there",
            ("truba.machine.machine:Machine._replaced", "head.first = head.next", "pass"),
            (
                "truba.machine.machine:Machine._replaced",
                "young.tails[number] = [event.record]",
                "young.tails[number] += [event.record]",
            ),
        ),
        # operators
        _break(
            "a paused kind is handed over",
            ("truba.node.dispatcher:KindLane.wait_ms", "if self.paused:", "if False:"),
        ),
        _break(
            "a checkpoint forgets that a kind is paused",
            (
                "truba.node.checkpoint:Checkpointer._run",
                "Summary(position, counts, paused)",
                "Summary(position, counts)",
            ),
        ),
        _break(
            "a continued kind stays paused",
            (
                "truba.machine.machine:Machine._paused",
                "if event.on else self.paused - {event.kind}",
                "if event.on else self.paused",
            ),
        ),
        _break(
            "Delete is not logged",
            ("truba.node.node:Node.delete", "self._stage(self.machine.delete(hold.number, hold.epoch))", "pass"),
        ),
        _break(
            "of several records the last is lost",
            (
                "truba.node.node:Node.append",
                "self.machine.append(hold.number, hold.epoch, records)",
                "self.machine.append(hold.number, hold.epoch, records[:2])",
            ),
        ),
        _break(
            "the write of a connection that broke is counted twice",
            ("truba.machine.machine:Machine._appended", "head.operations += 1", "head.operations += len(records)"),
        ),
    )
}


@contextmanager
def broken(name: str) -> Iterator[None]:
    """The pipe has that bug inside the block."""
    undo = []
    try:
        for edit in BREAKS[name].edits:
            function = _find(edit.where)
            undo.append((function, function.__code__))
            function.__code__ = _edited(function, edit)
        yield
    finally:
        for function, code in reversed(undo):
            function.__code__ = code


def _find(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert isinstance(found, FunctionType)
    return found


_sources: dict[object, str] = {}


def _edited(function: FunctionType, edit: Edit) -> object:
    source = _sources.get(function.__code__) or textwrap.dedent(inspect.getsource(function))
    assert source.count(edit.old) == 1, f"{edit.where} has {source.count(edit.old)} times {edit.old!r}"
    source = source.replace(edit.old, edit.new)
    names: dict[str, object] = {}
    exec(compile(source, f"<{edit.where}>", "exec"), dict(function.__globals__), names)
    made = names[function.__name__]
    assert isinstance(made, FunctionType)
    _sources[made.__code__] = source
    return made.__code__
