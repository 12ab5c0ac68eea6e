"""The bookkeeping of a client against a tiny pipe: lost requests, lost answers, absences, restarts, any order of them.

A write is applied once or not at all; nobody is told "it happened" or "it did not" of what is otherwise.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.model import TinyPipe
from truba.client import calls as module
from truba.client.calls import Calls, Held, RemoteHold
from truba.client.requests import encode
from truba.errors import Fenced, OperationError, Unavailable, UnknownOutcome


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@dataclass
class Told:
    """One operation of the client's."""

    hold: RemoteHold
    mark: bytes  # what stands in the pipe's log when it was applied
    answer: asyncio.Future[Any]

    def verdict(self) -> str:
        if not self.answer.done():
            return "waiting"
        if self.answer.cancelled():
            return "unknown"
        error = self.answer.exception()
        if error is None:
            return "happened"
        assert isinstance(error, OperationError)
        return error.happened


@dataclass
class World:
    """A client, a pipe, and a wire between them that loses what it likes."""

    pipe: TinyPipe
    clock: Clock
    up: bool = False
    to_pipe: deque[list[bytes]] = field(default_factory=deque)
    to_client: deque[bytes] = field(default_factory=deque)
    told: list[Told] = field(default_factory=list)
    holds: list[RemoteHold] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = Calls(self.pipe.grace_s, self.carry)
        self.marks = 0
        self.connect()

    def carry(self, requests: bytes) -> None:
        reader = hiredis.Reader()
        reader.feed(requests)
        while (request := reader.gets()) is not False:
            self.to_pipe.append(request)

    def mark(self) -> bytes:
        self.marks += 1
        return b"mark %d" % self.marks

    def open(self) -> None:
        tag = len(self.holds)
        hold = self.calls.holds[tag] = RemoteHold(7, tag, tag)
        self.holds.append(hold)
        mark = self.mark()
        self.told.append(
            Told(hold, mark, self.calls.submit(hold, "new", encode(b"NEW", b"7", b"TAG", b"%d" % tag, mark)))
        )

    def operate(self, at: int, verb: bytes) -> None:
        ready = [hold for hold in self.holds if hold.id is not None and not hold.ended]
        if not ready:
            return
        hold = ready[at % len(ready)]
        if verb in (b"APPEND", b"REPLACE"):
            mark = self.mark()
            self.told.append(Told(hold, mark, self.calls.submit(hold, "write", encode(verb, hold.ref, mark))))
        elif verb == b"TOUCH":
            self.calls.submit(hold, "touch", encode(verb, hold.ref)).add_done_callback(
                lambda answer: answer.cancelled() or answer.exception()
            )
        else:
            hold.ended = "closed"
            self.told.append(Told(hold, verb, self.calls.submit(hold, "end", encode(verb, hold.ref))))

    def deliver(self, requests: int) -> None:
        for _ in range(min(requests, len(self.to_pipe))):
            self.to_client.append(self.pipe.ask(self.to_pipe.popleft(), self.clock.now_s))

    def answer(self, answers: int) -> None:
        reader = hiredis.Reader()
        for _ in range(min(answers, len(self.to_client))):
            if not self.up:
                return
            reader.feed(self.to_client.popleft())
            if not self.calls.answered(reader.gets()):
                self.lose()

    def lose(self, noticed: bool = True) -> None:
        """The connection breaks; the pipe may go on to believe in it until the client is back."""
        if self.up:
            self.up = False
            self.calls.down()
            self.to_pipe.clear()
            self.to_client.clear()
            if noticed:
                self.pipe.leave(self.clock.now_s)

    def connect(self) -> None:
        if not self.up:
            asked_s = self.clock.now_s
            self.up = True
            self.calls.adopt([Held(entry) for entry in self.pipe.owner(asked_s)], asked_s)

    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.pipe.pass_time(self.clock.now_s)
        if not self.up:
            self.calls.expire(8.0)

    async def settle(self) -> None:
        """Nothing goes wrong any more."""
        self.connect()
        for _ in range(200):
            await asyncio.sleep(0)
            self.deliver(1000)
            self.answer(1000)
            if not self.up:
                self.connect()
            if self.calls.idle:
                return
        raise AssertionError("something is never settled")

    def check(self) -> None:
        logs: dict[int, list[bytes]] = {}
        for job in self.pipe.jobs:
            logs.setdefault(job.tag, []).extend(job.log)
        for tag, log in logs.items():
            assert len(log) == len(set(log)), f"doubled in {tag}: {log}"
            marks = [mark for mark in log if mark.startswith(b"mark")]
            assert marks == sorted(marks, key=lambda mark: int(mark.split()[1]))
        for told in self.told:
            there = told.mark in logs.get(told.hold.tag, [])
            match told.verdict():
                case "happened":
                    assert there, f"{told.mark!r} was said to have happened"
                case "no":
                    assert not there, f"{told.mark!r} was said not to have happened"
                case "waiting":
                    raise AssertionError(f"{told.mark!r} was never settled")


ENDS = (b"DELETE", b"STORE", b"FAIL")
STEP = st.one_of(
    st.tuples(st.just("open")),
    st.tuples(
        st.just("operate"), st.integers(0, 3), st.sampled_from((b"APPEND", b"APPEND", b"REPLACE", b"TOUCH", *ENDS))
    ),
    st.tuples(st.just("turn")),
    st.tuples(st.just("deliver"), st.integers(1, 4)),
    st.tuples(st.just("answer"), st.integers(1, 4)),
    st.tuples(st.just("lose"), st.booleans()),
    st.tuples(st.just("connect")),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from((0.1, 2.0, 5.0, 9.5, 11.0))),
)


@settings(max_examples=400, deadline=None)
@given(steps=st.lists(STEP, min_size=5, max_size=60), idle_s=st.sampled_from((1.0, 15.0, 1e9)))
def test_nothing_is_lost_or_doubled_and_nobody_is_told_wrongly(steps: list[tuple[Any, ...]], idle_s: float) -> None:
    async def main() -> None:
        world = World(TinyPipe(10.0, idle_s), clock)
        world.open()
        for name, *args in steps:
            if name == "turn":
                await asyncio.sleep(0)
            elif name == "cancel":
                waiting = [told for told in world.told if not told.answer.done()]
                if waiting:
                    waiting[args[0] % len(waiting)].answer.cancel()
            else:
                getattr(world, name)(*args)
        await world.settle()
        world.check()
        # What was not ended is still of use, or says why not.
        before = len(world.told)
        for at in range(len(world.holds)):
            world.operate(at, b"APPEND")
        await world.settle()
        world.check()
        assert all(told.answer.done() for told in world.told[before:])
        assert world.calls.idle

    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", clock)
        asyncio.run(main())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


async def opened(clock: Clock, **limits: float) -> World:
    world = World(TinyPipe(**limits), clock)
    world.open()
    await world.settle()
    return world


async def test_delete_of_a_session_taken_away_for_idleness_is_not_said_to_have_happened(clock: Clock) -> None:
    world = await opened(clock, grace_s=10.0, idle_s=20.0)
    for _ in range(5):  # the connection lives, the session sleeps
        world.wait(5.0)
        world.calls.ping()
        await world.settle()
    assert not world.pipe.held()
    world.operate(0, b"DELETE")
    await asyncio.sleep(0)
    world.lose()
    await world.settle()
    assert world.told[-1].verdict() == "unknown"


async def test_a_call_that_ran_out_of_time_is_still_counted_when_the_pipe_is_back(clock: Clock) -> None:
    world = await opened(clock, grace_s=1000.0)
    world.operate(0, b"APPEND")
    await asyncio.sleep(0)
    world.deliver(1)
    world.lose()
    world.operate(0, b"REPLACE")
    world.wait(9.0)
    assert [told.verdict() for told in world.told] == ["happened", "unknown", "no"]
    assert isinstance(world.told[-1].answer.exception(), Unavailable)  # it waited behind the other one
    world.operate(0, b"APPEND")
    await world.settle()
    assert world.told[-1].verdict() == "happened"
    assert world.holds[0].acknowledged == world.pipe.jobs[0].operations == 2


async def test_only_what_changes_nothing_is_sent_twice(clock: Clock) -> None:
    world = World(TinyPipe(), clock)
    read = world.calls.submit(None, "read", encode(b"PING"))
    other = world.calls.submit(None, "other", encode(b"REMOVE", b"1-1"))
    await asyncio.sleep(0)
    assert list(world.to_pipe) == [[b"PING"], [b"REMOVE", b"1-1"]]
    world.lose()
    world.to_pipe.clear()
    world.connect()
    assert list(world.to_pipe) == [[b"PING"]]
    assert isinstance(other.exception(), UnknownOutcome)
    assert not read.done()
    await world.settle()
    assert read.result()


async def test_a_touch_is_no_write(clock: Clock) -> None:
    """The pipe does not count it: counted here, the next lost write would be taken for one that was applied."""
    world = await opened(clock, grace_s=1000.0)
    world.operate(0, b"TOUCH")
    await world.settle()
    assert world.holds[0].acknowledged == world.pipe.jobs[0].operations == 0
    world.operate(0, b"APPEND")
    await asyncio.sleep(0)
    world.lose()
    world.to_pipe.clear()
    await world.settle()
    assert world.told[-1].verdict() == "happened"
    assert world.told[-1].mark in world.pipe.jobs[0].log


async def test_time_away_is_counted_from_when_the_last_answered_request_was_sent(clock: Clock) -> None:
    """The answer may have been under way for long, and the pipe counts from when it saw the request."""
    world = await opened(clock, grace_s=1000.0)
    world.operate(0, b"APPEND")
    await asyncio.sleep(0)
    sent_s = clock.now_s
    world.deliver(1)
    clock.now_s += 7.0
    await world.settle()
    assert world.told[-1].verdict() == "happened"
    assert world.holds[0].seen_s == sent_s


async def test_calls_behind_one_whose_session_is_lost_are_not_sent(clock: Clock) -> None:
    world = await opened(clock)
    for _ in range(3):
        world.operate(0, b"APPEND")
    await asyncio.sleep(0)
    world.lose()
    world.clock.now_s += 11.0
    world.pipe.pass_time(world.clock.now_s)
    await world.settle()
    assert [told.verdict() for told in world.told] == ["happened", "unknown", "no", "no"]
    assert isinstance(world.told[-1].answer.exception(), Fenced)


async def test_a_session_lost_while_nothing_was_under_way_is_noticed(clock: Clock) -> None:
    world = await opened(clock)
    world.lose()
    world.wait(11.0)
    world.connect()
    assert world.holds[0].ended == "taken"
    assert not world.calls.holds
    with pytest.raises(Fenced, match="taken away from you; nothing was sent"):
        world.holds[0].check()


async def test_a_new_that_nobody_waits_for_is_given_back(clock: Clock) -> None:
    world = World(TinyPipe(), clock)
    world.open()
    hold = world.holds[0]
    world.told[0].answer.cancel()
    assert world.calls.give_back(hold, "cancelled") is None
    await world.settle()
    assert world.pipe.jobs[0].log == [b"mark 1", b"FAIL"]
    assert not world.calls.holds


async def test_a_new_that_nobody_waits_for_and_was_not_sent_is_forgotten(clock: Clock) -> None:
    world = World(TinyPipe(), clock)
    world.lose()
    world.open()
    world.told[0].answer.cancel()
    world.calls.give_back(world.holds[0], "cancelled")
    await world.settle()
    assert not world.pipe.jobs
    assert not world.calls.holds


async def test_a_request_under_which_the_connection_always_breaks_is_given_up(clock: Clock) -> None:
    world = await opened(clock)
    world.operate(0, b"APPEND")
    for _ in range(module.BREAKS_MAX):
        await asyncio.sleep(0)
        world.lose()
        world.connect()
    assert isinstance(world.told[-1].answer.exception(), Unavailable)
    world.operate(0, b"APPEND")
    await world.settle()
    assert world.told[-1].verdict() == "happened"


async def test_back_pressure_passes_a_wake_on_when_whoever_was_woken_is_cancelled(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNDER_WAY_MAX", 1)
    world = await opened(clock)
    world.operate(0, b"APPEND")
    waiters = [asyncio.create_task(world.calls.room()) for _ in range(3)]
    await asyncio.sleep(0)
    world.deliver(1)
    world.answer(1)
    waiters[0].cancel()  # woken already
    _, pending = await asyncio.wait(waiters, timeout=5)
    assert not pending
    assert [waiter.cancelled() for waiter in waiters] == [True, False, False]


async def test_the_end_settles_everything(clock: Clock) -> None:
    world = await opened(clock)
    for _ in range(3):
        world.operate(0, b"APPEND")
    await asyncio.sleep(0)
    world.calls.end(Unavailable("closed; nothing was sent"))
    assert [told.verdict() for told in world.told] == ["happened", "unknown", "no", "no"]
    assert world.calls.idle
    with pytest.raises(Unavailable):
        world.calls.submit(None, "read", b"")
