"""A client protocol, a handler transport and an authenticator of the user's own, in a real pipe: docs/extending.md."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.service.process import Servers, kind
from tests.service.wire import Refused, Wire, until

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def test_the_page_runs(pipes: Servers) -> None:
    (toml,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (python,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    finished = pipes.directory / "unfinished.txt"
    port_file = pipes.directory / "port"
    (pipes.directory / "my_pipe.py").write_text(python)
    config = pipes.directory / "truba.toml"
    toml = toml.replace("/tmp/unfinished.txt", str(finished)).replace('"port"', f'"{port_file}"')
    config.write_text(toml.replace("[node]\n", '[node]\nlisten = "127.0.0.1:0"\n'))
    server = pipes.start_again(config)

    with socket.create_connection(("127.0.0.1", int(port_file.read_text())), 10) as client:
        lines = client.makefile("rw")
        lines.write("7 take 5 from A\n9 of no kind\n")
        lines.flush()
        session_id = lines.readline().strip()
        assert re.fullmatch(r"1-\d+", session_id)
        assert lines.readline().startswith("! UNKNOWNKIND no kind 9")
        lines.close()
    until(lambda: finished.read_text() if finished.exists() else "", lambda text: text.endswith("\n"))
    assert finished.read_text() == f"{session_id} 1 lost b'take 5 from A'\n"

    with Wire.dial(server.address) as wire:
        for refused in (("NEW", "7"), ("AUTH", "ann", "wrong")):
            with pytest.raises(Refused, match=r"^NOAUTH"):
                wire.ask(*refused)
        assert wire.ask("AUTH", "ann", "hush") == b"OK"
        held = wire.ask("NEW", "7", "a")
        assert wire.ask("APPEND", held, "b") == b"OK"
        with pytest.raises(Refused, match=r"^NOPERM user 'ann' may not STORE on kind 7"):
            wire.ask("STORE", held, "5")
        assert wire.ask("DELETE", held) == b"OK"
    assert server.terminate() == 0


OWN = """
from pathlib import Path


class Own:
    def __init__(self, options):
        self.options = options

    async def start(self, node):
        pass

    async def stop(self):
        Path(self.options["stopped"]).touch()
        if self.options["falls"]:
            raise ConnectionError("half closed")
"""


def test_a_frontend_that_does_not_stop_cleanly_holds_up_nobody_else(pipes: Servers) -> None:
    (pipes.directory / "own.py").write_text(OWN)
    table = '[[node.frontends]]\nfactory = "own:Own"\noptions = {{ stopped = "{}", falls = {} }}\n'
    server = pipes.start(table.format("first", "true") + table.format("second", "false") + kind())
    with Wire.dial(server.address) as wire:
        wire.ask("NEW", "7", "a")
    assert server.terminate() == 0
    told = next(line for line in server.logged if line["event"] == "frontend not stopped cleanly")
    assert (told["frontend"], told["error"], told["level"]) == ("Own", "ConnectionError('half closed')", "error")
    assert "half closed" in told["exception"]
    assert server.logged[-1]["event"] == "stopped"
    assert (pipes.directory / "second").exists()
