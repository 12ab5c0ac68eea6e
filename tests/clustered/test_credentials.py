"""A node as a user of NATS' operators: served, written to, refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clustered.support import records_of, run_truba, write
from tests.streams.operators import ACCOUNT, Key, OperatorServer, credentials, operated
from truba.testing.nodes import Nodes

NOT_INSTALLED = """
import sys
from truba.cli.main import main

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "cryptography":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Finder())
main()
"""

pytestmark = pytest.mark.timeout(120)


def configure(nodes: Nodes, truba: Path, system: Path) -> str:
    """Node a's file, with credentials instead of users and their passwords; its path."""
    path = nodes.config("a")
    text = path.read_text()
    for user, file in (
        ('user = "truba"\npassword_file = "nats.secret"\n', f'credentials_file = "{truba}"\n'),
        ('system_user = "sys"\nsystem_password_file = "sys.secret"\n', f'system_credentials_file = "{system}"\n'),
    ):
        assert text.count(user) == 1
        text = text.replace(user, file)
    path.write_text(text)
    return str(path)


async def test_a_node_with_credentials_serves_and_one_with_wrong_ones_says_why_it_does_not(tmp_path: Path) -> None:
    async with operated(tmp_path / "nats") as server, Nodes(tmp_path / "nodes", server, ["a"]) as nodes:
        truba = server.truba()
        config = configure(nodes, truba, server.sys())
        await nodes.start()
        known = await write(nodes, 5)
        assert await records_of(nodes) == known
        assert await nodes.stop("a") == 0

        _, out, err = await run_truba("check", "--config", config)
        assert "stream truba is as it must be" in out, out + err

        truba.write_text(credentials(Key(ACCOUNT), "truba"))
        code, out, err = await run_truba("serve", "--config", config)
        assert (code, "does not let us in" in err, "Traceback" in err) == (2, True, False), err
        truba.write_text("no JWT")
        code, out, err = await run_truba("serve", "--config", config)
        assert (code, "there is no NATS USER JWT in it" in err, "Traceback" in err) == (2, True, False), err


@pytest.mark.parametrize("command", ["serve", "check"])
def test_what_signs_and_is_not_installed_is_named(tmp_path: Path, command: str) -> None:
    """No server runs: it is told before one is asked."""
    server = OperatorServer(tmp_path / "nats")
    try:
        config = configure(Nodes(tmp_path / "nodes", server, ["a"]), server.truba(), server.sys())
        arguments = [sys.executable, "-c", NOT_INSTALLED, command, "--config", config]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    finally:
        server.process.end()
    assert done.returncode == 2, done.stderr
    assert "NATS credentials need cryptography" in done.stderr
    assert "pip install 'truba[cluster]'" in done.stderr
    assert "Traceback" not in done.stderr
