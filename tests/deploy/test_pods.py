"""The pods of the manifests, run: as their user, without rights, on a root that cannot be written to.

Their own probes ask them; they are stopped and started again on their volumes, one after the other as in a rollout.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clustered.namespaces import Hosts
from tests.deploy.kubelet import Pod, Secrets, unable
from tests.deploy.manifests import DIRECTORY, hosts_told, pod_names, secrets_told
from tests.deploy.support import ENVIRONMENT, PYTHON
from tests.service.process import Child
from tests.tls.certificates import Authority
from truba.processes.tether import tethered

SINGLE, CLUSTER, NATS = (DIRECTORY / f"{name}.yaml" for name in ("single", "cluster", "nats"))
HUB = "10.9.0.254"
PASSWORD = "/etc/truba/secrets/password"
CA = "/etc/truba/tls/ca.crt"
URL = "trubas://truba.truba.svc:7433"
ASKED = ("--url", URL, "--ca", CA, "--password-file", PASSWORD)

LACKING = unable()

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(bool(LACKING), reason=LACKING)]

WRITE = f"""
import pathlib, sys, truba, truba.sync
tls = truba.Tls(ca={CA!r})
password = pathlib.Path({PASSWORD!r}).read_text()
with truba.sync.connect({URL!r}, tls=tls, password=password) as pipe:
    session = pipe.new(7, b"taken")
    session.append(b"given")
    session.store(int(sys.argv[1]))
    print(session.id)
"""

HANDLER = """
import sys


async def finish(repeat):
    print("finished", repeat.session.id, list(repeat.records), file=sys.stderr)


HANDLERS = {7: finish}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def made(authority: Authority, *manifests: Path) -> Secrets:
    """What docs/deployment.md has people make, and the certificates that the heads of the manifests want."""
    found: dict[str, dict[str, bytes]] = {}
    for manifest in manifests:
        issued = authority.issue(manifest.stem, *hosts_told(manifest))
        assert issued.certificate is not None
        assert issued.key is not None
        tls = {
            "tls.crt": issued.certificate.read_bytes(),
            "tls.key": issued.key.read_bytes(),
            "ca.crt": authority.pem.read_bytes(),
        }
        for name, keys in secrets_told(manifest).items():
            found[name] = {key: tls[key] if key in tls else f"p{secrets.token_hex(32)}".encode() for key in keys}
    return found


@pytest.fixture
def hosts(request: pytest.FixtureRequest) -> Iterator[Hosts]:
    with Hosts(request.param) as hosts:
        yield hosts


def write(pod: Pod, due_s: int) -> str:
    """The id of a session that is stored."""
    done = pod.exec("env", *ENVIRONMENT.split(), PYTHON, "-c", WRITE, str(due_s))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("hosts", [1], indirect=True)
def test_one_pipe(hosts: Hosts, authority: Authority, tmp_path: Path) -> None:
    wanted = made(authority, SINGLE)
    pod = Pod(SINGLE, 0, 1, hosts, wanted, tmp_path)
    pod.names = {"truba.truba.svc": pod.address, "transfers.bank.svc": HUB}
    try:
        pod.start()
        pod.become_ready()

        status = pod.exec("cat", "/proc/1/status").stdout
        assert "Uid:\t7433\t7433\t7433\t7433\n" in status
        assert "CapEff:\t0000000000000000\n" in status
        assert "CapBnd:\t0000000000000000\n" in status
        assert "NoNewPrivs:\t1\n" in status
        assert "Read-only file system" in pod.exec("touch", "/tmp/x").stderr

        number = write(pod, 1)
        assert pod.stop() == 0
        pod.start()
        pod.become_ready()
        assert "transfer" in pod.exec("truba", "ls", *ASKED).stdout
        pod.kill()
        pod.start()
        pod.become_ready()

        assert finish(authority, wanted, tmp_path) == f"finished {number} [b'taken', b'given']\n"
        assert pod.stop() == 0
    finally:
        pod.kill()


def finish(authority: Authority, wanted: Secrets, directory: Path) -> str:
    """What the handlers' service, at the address of the manifest, says that it has finished first."""
    tls = authority.issue("transfers.bank.svc")
    (directory / "recovery.py").write_text(HANDLER)
    options = ["--listen", f"{HUB}:7434", "--certificate", str(tls.certificate), "--key", str(tls.key)]
    for name in ("handler-secret", "password"):
        path = directory / name
        path.touch(mode=0o600)
        path.write_bytes(wanted["truba"][name])
        options += [f"--{name.removeprefix('handler-')}-file", str(path)]
    command = [sys.executable, "-m", "truba", "handlers", "recovery:HANDLERS", *options]
    service = Child(tethered(*command), cwd=directory)
    try:
        return service.wait_line("finished")
    finally:
        service.terminate()


def roll_out(pods: list[Pod]) -> None:
    """As a StatefulSet does: from the last to the first, the next one only when this one is ready again."""
    for pod in reversed(pods):
        assert pod.stop() == 0
        pod.start()
        pod.become_ready()


@pytest.mark.parametrize("hosts", [6], indirect=True)
def test_three_nodes_on_three_servers(hosts: Hosts, authority: Authority, tmp_path: Path) -> None:
    wanted = made(authority, NATS, CLUSTER)
    servers = [Pod(NATS, n, n + 1, hosts, wanted, tmp_path) for n in range(len(pod_names(NATS)))]
    nodes = [Pod(CLUSTER, n, n + 4, hosts, wanted, tmp_path) for n in range(len(pod_names(CLUSTER)))]
    names = {name: pod.address for pod in (*servers, *nodes) for name in pod.names_of_its_own}
    names |= {"truba.truba.svc": nodes[0].address, "transfers.bank.svc": HUB}
    try:
        for pod in (*servers, *nodes):
            pod.names = names
            pod.start()
        for pod in (*servers, *nodes):
            pod.become_ready()
        number = write(nodes[0], 3600)
        roll_out(nodes)
        roll_out(servers)
        status = ("truba", "cluster", "status", "--config", "/run/truba/truba.toml")
        nodes[0].wait(lambda: nodes[0].exec(*status).returncode == 0, "a cluster in which all is well")
        for pod in nodes:
            pod.become_ready()
        assert number in nodes[0].exec("truba", "ls", "--all", *ASKED).stdout
    finally:
        for pod in (*nodes, *servers):
            pod.kill()
