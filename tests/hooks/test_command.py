"""Commands as hooks: real processes, good and bad ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
import uvloop

from truba.hooks import command
from truba.hooks.command import CommandFailed, CommandHook
from truba.hooks.function import FunctionHook
from truba.ports.parked import ParkedSession
from truba.types import Cause, Index

PARKED = ParkedSession(Index(3, 117), 7, "transfer", Cause.FAILED, "25 attempts: $(touch /tmp/x) `no` \n ü", 25, 25)
PATIENCE_S = 60.0

RunLoop = Callable[[Coroutine[object, object, None]], None]
both_loops = pytest.mark.parametrize("run_loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


async def run(*argv: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await CommandHook(argv)(PARKED)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


async def test_it_is_told_in_one_line_and_its_arguments_are_as_written(tmp_path: Path) -> None:
    told = tmp_path / "told"
    argument = "$HOME; * 'two words'"
    await run(program(tmp_path / "hook", f"printf '%s\\n' \"$1\" > {told}; cat >> {told}"), argument)
    first, line = told.read_text().splitlines()
    assert first == argument
    assert json.loads(line) == {
        "session": "3-117", "kind": 7, "name": "transfer", "cause": "failed", "detail": PARKED.detail, "attempts": 25,
    }  # fmt: skip


async def test_a_command_that_does_not_read_what_it_is_told() -> None:
    await run("/bin/true")


@both_loops
def test_what_a_command_leaves_behind_is_neither_waited_for_nor_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_loop: RunLoop
) -> None:
    monkeypatch.setattr(command, "LAST_WORDS_S", 0.1)
    left = tmp_path / "left"

    async def main() -> None:
        await run("/bin/true")  # what the loop opens for its first child, it keeps
        open_before = descriptors()
        await run(program(tmp_path / "well", f"sleep 100 & echo $! > {left}"))
        with pytest.raises(CommandFailed, match=r"exit status 3: no network$"):
            await run(program(tmp_path / "ill", f"sleep 100 & echo $! >> {left}; echo 'no network' >&2; exit 3"))
        await until(lambda: descriptors() <= open_before)
        assert all(_runs(number) for number in left.read_text().split())

    try:
        run_loop(main())
    finally:
        for number in left.read_text().split():
            os.kill(int(number), signal.SIGKILL)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("echo 'no network' >&2; exit 3", "exit status 3: no network$"),
        ("exit 1", "exit status 1$"),
        ("kill -9 $$", "killed by SIGKILL$"),
        ("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1", "exit status 1: x{400}$"),
    ],
)
async def test_how_it_failed_is_told(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(CommandFailed, match=wanted):
        await run(program(tmp_path / "hook", text))


async def test_what_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="cannot be run: No such file"):
        await run(str(tmp_path / "nothing"))
    (tmp_path / "text").write_text("echo")
    with pytest.raises(CommandFailed, match="cannot be run: Permission denied"):
        await run(str(tmp_path / "text"))


@both_loops
def test_cancelled_it_is_killed_with_what_it_has_started(tmp_path: Path, run_loop: RunLoop) -> None:
    ids = tmp_path / "ids"
    hook = CommandHook(
        [program(tmp_path / "hook", f"sleep 100 & echo $$ $! > {ids}.young; mv {ids}.young {ids}; wait")]
    )

    async def main() -> None:
        await run("/bin/true")
        open_before = descriptors()
        task = asyncio.create_task(hook(PARKED))
        await until(lambda: ids.exists() or task.done())
        await cancelled(task)
        await until(lambda: not any(_runs(number) for number in ids.read_text().split()))
        await until(lambda: descriptors() <= open_before)

    run_loop(main())


@both_loops
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_cancelled_as_it_starts_nothing_of_it_goes_on(tmp_path: Path, run_loop: RunLoop, turns: int) -> None:
    """It has started another one already when the loop has hardly heard that it was started itself."""
    ids = tmp_path / "ids"
    hook = CommandHook(
        [program(tmp_path / "hook", f"sleep 100 & echo $$ $! > {ids}.young; mv {ids}.young {ids}; wait")]
    )

    async def main() -> None:
        task = asyncio.create_task(hook(PARKED))
        for _ in range(turns):
            await asyncio.sleep(0)
        given_up = time.monotonic() + PATIENCE_S
        while not ids.exists() and time.monotonic() < given_up:
            time.sleep(0.01)  # noqa: ASYNC251 - the loop is to stand still
        await cancelled(task)
        await until(lambda: not any(_runs(number) for number in ids.read_text().split()))

    run_loop(main())


async def test_a_program_that_ignores_its_children_can_have_hooks(tmp_path: Path) -> None:
    """Whether one failed is not known then: the system keeps no exit status."""
    told = tmp_path / "told"
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        await run(program(tmp_path / "hook", f"cat > {told}"))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert json.loads(told.read_text())["name"] == "transfer"


async def test_a_command_that_nobody_could_wait_for_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    slow = program(tmp_path / "hook", "sleep 100")
    open_before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none)
        with pytest.raises(RuntimeError, match="new thread"):
            await run(slow)
    assert descriptors() == open_before
    assert not any(slow in command for command in commands())


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(condition: Callable[[], bool]) -> None:
    """Of the system's own time: it ends processes, and closes descriptors, when it likes."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def commands() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return found


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def _runs(number: str) -> bool:
    """A child of init may be dead and not yet waited for."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_functions_of_both_kinds() -> None:
    told: list[object] = []

    async def coroutine(parked: ParkedSession) -> None:
        told.append(parked)

    for function in (coroutine, told.append):
        await FunctionHook(function)(PARKED)
    assert told == [PARKED, PARKED]


async def test_what_a_function_raises_is_shown() -> None:
    shown: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: shown.append(context))

    def broken(parked: ParkedSession) -> None:
        raise LookupError("nobody is on duty")

    with pytest.raises(LookupError):
        await FunctionHook(broken)(PARKED)
    assert shown[0]["message"] == "on_parked of kind transfer failed for session 3-117"
