"""Restate: one server, its defaults (the log is synced), and a service on Node whose handler has three durable steps.

A session is one HTTP request to the server's ingress, which calls the service, keeps what each step gave, and answers.
"""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.race.processes import POLL_S, READY_S, server, wait_until_open
from bench.race.script import REST, Script, step
from bench.race.sides.side import BUILD, SETUP, Scripted, Unit, said
from truba.errors import TrubaError
from truba.testing.ports import free_ports

MODULES = BUILD / "node" / "node_modules"
SERVICE = Path(__file__).parents[1] / "workers" / "restate_service.mjs"
SCRIPT = Script(
    (
        step(
            b"POST /Race/job HTTP/1.1\r\nhost: race\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
            (b"HTTP/1.1 200 OK\r\n", REST, b'\r\n\r\n"done"'),
        ),
    )
)


def _program() -> Path | None:
    """The server itself, not the script of npm that starts it: a process less to look after."""
    found = sorted(MODULES.glob("@restatedev/restate-server-*/bin/restate-server"))
    return found[0] if found else None


class Restate:
    name = "restate"
    unit: Unit = "sessions"

    @property
    def install(self) -> str:
        return SETUP if shutil.which("npm") else f"apt-get install nodejs npm && {SETUP}"

    def missing(self) -> str | None:
        absent = [] if shutil.which("node") else ["node"]
        absent += [] if _program() else ["restate-server"]
        absent += [] if (MODULES / "@restatedev" / "restate-sdk").exists() else ["restate-sdk"]
        return ", ".join(absent) or None

    def version(self) -> str:
        sdk = json.loads((MODULES / "@restatedev" / "restate-sdk" / "package.json").read_text())["version"]
        found = said(str(_program()), "--version").split()[1]
        return f"Restate {found}, its SDK {sdk} on Node {said('node', '--version').lstrip('v')}"

    @contextmanager
    def running(self, directory: Path, clients_max: int) -> Iterator[Scripted]:
        ingress, admin, fabric, service = free_ports(4)
        environment = {
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_IP": "127.0.0.1",
            "RESTATE_BIND_PORT": f"{fabric}",
            "RESTATE_INGRESS__BIND_PORT": f"{ingress}",
            "RESTATE_ADMIN__BIND_PORT": f"{admin}",
            "RESTATE_NODE_NAME": "race",
            "RESTATE_BASE_DIR": str(directory / "data"),
            "RESTATE_LOG_DISABLE_ANSI_CODES": "true",
            "RACE_PORT": f"{service}",
            "RACE_MODULES": str(MODULES),
        }
        with (
            server(["node", str(SERVICE)], directory, environment=environment) as node,
            server([str(_program())], directory, environment=environment) as process,
        ):
            wait_until_open(node, service, directory, "node")
            wait_until_open(process, admin, directory, "restate-server")
            _until_works(f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://127.0.0.1:{service}"})
            wait_until_open(process, ingress, directory, "restate-server")
            _until_works(f"http://127.0.0.1:{ingress}/Race/job", {})
            yield Scripted((process.pid,), ingress, SCRIPT, workers=(node.pid,))


def _until_works(url: str, body: dict[str, str]) -> None:
    """A server that listens is not yet one that has elected itself."""
    until = time.monotonic() + READY_S
    while True:
        request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30):
                return
        except OSError as error:
            if time.monotonic() > until:
                raise TrubaError(f"{url}: {error}") from error
            time.sleep(POLL_S)
