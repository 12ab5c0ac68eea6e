"""The examples of webhook handlers, each in its own process, posted to by a real pipe."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.inprocess import until
from tests.transports.receiver import SECRET, kind, piped
from truba.types import Cause, Phase
from truba.webhook import Webhook

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "webhook"
OTHER = "whsec_" + "A" * 43 + "="
LINES_MAX = 32


def express() -> list[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not there: install Node.js 20 or later")
    if not (EXAMPLES / "express" / "node_modules").is_dir():
        pytest.skip("express is not there: run npm ci in examples/webhook/express")
    return [node, "express/server.mjs"]


COMMANDS = {
    "fastapi": lambda: [sys.executable, "-m", "uvicorn", "fastapi_handler:app", "--port", "0"],
    "flask": lambda: [sys.executable, "-m", "flask", "--app", "flask_handler", "run", "--port", "0"],
    "express": express,
}


@pytest.fixture(params=COMMANDS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where an example listens. It takes the secret that is used, and one that takes its place."""
    settings = {"TRANSFER_WHSEC": f"{OTHER} {SECRET}", "PORT": "0", "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        COMMANDS[request.param](),
        cwd=EXAMPLES,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"(?:127\.0\.0\.1:|listening on )(\d+)", line):
                yield f"http://127.0.0.1:{found[1]}/unfinished"
                break
        else:
            pytest.fail("".join(said))
    finally:
        process.kill()
        process.communicate()


async def test_an_example_finishes_a_session(url: str, tmp_path: Path) -> None:
    async with piped(tmp_path, kind(Webhook(url, SECRET))) as (pipe, told):
        session = await pipe.new(7, b"debit 5")
        await session.store(0)
        await until(lambda: not pipe.node.machine.counts)
        assert told.lines == []
        await pipe.node.sequencer.flush()
        events = [event for event in _events(pipe) if event.startswith(("Appended", "Repeated", "Deleted"))]
    assert [event.partition("(")[0] for event in events] == ["Repeated", "Appended", "Repeated", "Deleted"]
    assert "b'debited'" in events[1]


async def test_an_example_refuses_strangers(url: str, tmp_path: Path) -> None:
    stranger = "whsec_" + "B" * 43 + "="
    async with piped(tmp_path, kind(Webhook(url, stranger), max_attempts=1)) as (pipe, told):
        session = await pipe.new(7, b"debit 5")
        await session.store(0)
        await until(lambda: pipe.node.machine.counts == {(7, Phase.PARKED): 1})
        assert pipe.node.look_up(session.id).cause is Cause.FAILED
        assert "answered 401" in str(told.lines[0][1]["detail"])


def _events(pipe: object) -> list[str]:
    from truba.codec.batch import decode_batch

    return [str(event) for batch, _ in pipe.node.log.read(0) for event in decode_batch(batch.body)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["fastapi_handler.py", "flask_handler.py", "express/server.mjs"])
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= LINES_MAX
