"""Commands as hooks: real processes, good and bad ones."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
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


def test_a_command_that_has_closed_its_input_before_it_is_told_is_heard_all_the_same() -> None:
    """As the service runs it: uvloop has its own word for that."""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "echo busy >&2", stdin=PIPE, stderr=PIPE)
        await process.wait()
        assert await command.converse(process, b"{}\n") == "busy"

    uvloop.run(main())


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


async def test_cancelled_it_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    hook = CommandHook(
        [program(tmp_path / "hook", f"sleep 100 & echo $$ $! > {ids}.young; mv {ids}.young {ids}; wait")]
    )
    task = asyncio.create_task(hook(PARKED))
    async with asyncio.timeout(PATIENCE_S):
        while not ids.exists():
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for number in ids.read_text().split():
            while _runs(number):  # noqa: ASYNC110 - init's own time
                await asyncio.sleep(0.01)


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
