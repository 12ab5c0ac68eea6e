"""The manifests: valid for Kubernetes; their ports, paths, secrets and names are those of the configuration in them."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import kubernetes_validate
import pytest

from tests.deploy.manifests import DIRECTORY, containers, documents, only, pod, pod_names, secrets_told, text
from tests.deploy.support import ROOT, make_certificate
from tests.service.process import PATIENCE_S, servers
from truba import config
from truba.admin.guard import OPEN
from truba.config.model import Node

MANIFESTS = sorted(DIRECTORY.glob("*.yaml"))
PIPES = [DIRECTORY / "single.yaml", DIRECTORY / "cluster.yaml"]
VERSIONS = ("1.29", "1.32", "1.35")
"""The oldest has ReadWriteOncePod for everybody."""

by_name = pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
of_pipes = pytest.mark.parametrize("manifest", PIPES, ids=lambda path: path.name)


@by_name
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(manifest: Path, version: str) -> None:
    for document in documents(manifest):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_field_would_be_seen() -> None:
    document = only(PIPES[0], "StatefulSet")
    document["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)


@by_name
def test_what_selects_pods_selects_these(manifest: Path) -> None:
    labels = pod(manifest)["metadata"]["labels"]
    ports = {port["name"] for container in containers(manifest) for port in container.get("ports", [])}
    headless = set()
    for document in documents(manifest):
        match document["kind"], document.get("spec", {}):
            case "Service", spec:
                assert spec["selector"] == labels
                assert {port["targetPort"] for port in spec["ports"]} <= ports
                if len(pod_names(manifest)) == 1 or spec.get("clusterIP") == "None":
                    headless.add(document["metadata"]["name"])
            case "StatefulSet", spec:
                assert spec["selector"]["matchLabels"] == labels
                assert spec["serviceName"] in headless
            case "PodDisruptionBudget", spec:
                assert spec["selector"]["matchLabels"] == labels
                assert spec["maxUnavailable"] == 1
            case "NetworkPolicy", spec:
                assert spec["podSelector"]["matchLabels"] == labels
                assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= ports


@by_name
def test_it_has_no_rights_that_it_does_not_need(manifest: Path) -> None:
    spec = pod(manifest)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(manifest):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@by_name
def test_every_mount_has_its_volume(manifest: Path) -> None:
    volumes = {volume["name"] for volume in pod(manifest)["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in only(manifest, "StatefulSet")["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for container in containers(manifest) for mount in container["volumeMounts"]} == volumes


@of_pipes
def test_a_pod_is_the_user_of_the_image_and_has_time_to_stop(manifest: Path) -> None:
    spec = pod(manifest)["spec"]
    (user,) = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE)
    context = spec["securityContext"]
    assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user
    assert spec["terminationGracePeriodSeconds"] > 2 * Node().stop_timeout


def mount_secrets(manifest: Path, root: Path) -> None:
    """Where the container has them, below `root`."""
    told = secrets_told(manifest)
    spec = pod(manifest)["spec"]
    mounts = {mount["name"]: mount["mountPath"].lstrip("/") for mount in spec["containers"][0]["volumeMounts"]}
    for volume in spec["volumes"]:
        if "secret" in volume:
            directory = root / mounts[volume["name"]]
            directory.mkdir(parents=True)
            for key in told[volume["secret"]["secretName"]]:
                (directory / key).write_text("hush, sixteen bytes of it")
    make_certificate(root / mounts["tls"])


def write_config(manifest: Path, root: Path, name: str) -> tuple[Path, str]:
    """The configuration that the pod of that name has, moved below `root`; and its text as it is in the pod."""
    spec = pod(manifest)["spec"]
    inside = spec["containers"][0]["args"][-1]
    path = root / inside.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(manifest, "truba.toml"))
    if "initContainers" in spec:
        (init,) = spec["initContainers"]
        template = path.rename(root / "template.toml")
        shell, dash_c, command = init["command"]
        command = command.replace("/etc/template/truba.toml", str(template)).replace(inside, str(path))
        subprocess.run([shell, dash_c, command], env=os.environ | {"POD_NAME": name}, timeout=10, check=True)
    written = path.read_text()
    path.write_text(re.sub(r'"(/etc|/var)/', rf'"{root}\1/', written))
    return path, written


@of_pipes
def test_the_configuration_is_good(manifest: Path, tmp_path: Path) -> None:
    """As each pod reads it: the file where the pod has it, the secrets where they are mounted."""
    mount_secrets(manifest, tmp_path)
    (truba,) = pod(manifest)["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in truba["ports"]}
    used = set()
    for name in pod_names(manifest):
        path, written = write_config(manifest, tmp_path, name)
        used |= set(re.findall(r'"(/etc/truba/[^"]+)"', written))
        loaded = config.load(path)
        assert loaded.node.data == tmp_path / "var/lib/truba/data"
        assert loaded.node.listen is not None
        assert loaded.node.listen.port == ports["clients"]
        assert loaded.admin is not None
        assert loaded.admin.listen.port == ports["admin"]
        assert loaded.admin.tls is not None, "probes speak HTTPS"
        if loaded.cluster is not None:
            assert loaded.node.name == name
            assert loaded.cluster.door(name).port == ports["peers"]
            service = only(manifest, "StatefulSet")["spec"]["serviceName"]
            hosts = {name: node.clients.host for name, node in loaded.cluster.nodes.items()}
            assert hosts == {name: f"{name}.{service}.truba.svc" for name in pod_names(manifest)}
            assert [re.sub(r"tls://(.*):4222", r"\1", server) for server in loaded.cluster.servers] == [
                f"{name}.nats.truba.svc" for name in pod_names(DIRECTORY / "nats.yaml")
            ]
    told = secrets_told(manifest)
    assert {Path(path).name for path in used} == told["truba"] | told["truba-tls"]


def test_a_pod_of_it_serves_and_its_probes_are_answered(tmp_path: Path) -> None:
    """One pipe, with its TLS, its password, its operators' address; at ports of loopback."""
    manifest = DIRECTORY / "single.yaml"
    mount_secrets(manifest, tmp_path)
    path, _ = write_config(manifest, tmp_path, "truba-0")
    path.write_text(re.sub(r'"0\.0\.0\.0:\d+"', '"127.0.0.1:0"', path.read_text()))
    unverified = ssl._create_unverified_context()  # noqa: SLF001 - as the kubelet does
    (truba,) = pod(manifest)["spec"]["containers"]
    for pipes in servers(tmp_path):
        server = pipes.start_again(path)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            url = f"https://{server.ready['admin']}{truba[probe]['httpGet']['path']}"
            with urlopen(url, context=unverified, timeout=PATIENCE_S) as answer:
                assert answer.status == 200
        assert server.terminate() == 0


@of_pipes
def test_probes_ask_what_everybody_may_ask(manifest: Path) -> None:
    (truba,) = pod(manifest)["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert truba[probe]["httpGet"]["path"] in OPEN
        assert truba[probe]["httpGet"]["port"] == "admin"
        assert truba[probe]["httpGet"]["scheme"] == "HTTPS"


def test_nats_takes_its_configuration(tmp_path: Path) -> None:
    server = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if server is None or shutil.which("openssl") is None:
        pytest.skip("needs nats-server and openssl, and one of them is not installed")
    manifest = DIRECTORY / "nats.yaml"
    make_certificate(tmp_path)
    written = text(manifest, "nats-server.conf").replace("/etc/nats/tls", str(tmp_path))
    (tmp_path / "nats-server.conf").write_text(written.replace("/var/lib/nats", str(tmp_path / "store")))
    (nats,) = pod(manifest)["spec"]["containers"]
    environment = {variable["name"]: "p0" for variable in nats["env"]}

    def judged(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [server, "-t", "-c", str(tmp_path / "nats-server.conf")]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)

    assert "is valid" in judged(environment).stderr
    assert judged({}).returncode != 0  # it does read the variables
    assert re.findall(r"nats-route://(\S+?)\.nats\.truba\.svc:6222", written) == pod_names(manifest)


def test_nats_gives_truba_the_rights_that_the_documentation_tells() -> None:
    def allowed(conf: str) -> list[str]:
        return re.findall(r'^ *("[$\w].*?")', conf.partition("publish:")[2].partition("subscribe:")[0], re.MULTILINE)

    page = (ROOT / "docs" / "cluster.md").read_text()
    assert allowed(page)
    assert allowed(text(DIRECTORY / "nats.yaml", "nats-server.conf")) == allowed(page)
