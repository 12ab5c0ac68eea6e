"""A kubelet in small: pods of the manifests as processes, each on a host and in a root of its own.

From the manifest come the commands, the user, the rights, the variables, the files and volumes, the probes, and how
long a stop may take; from the Dockerfile what the image says of its environment. In the place of the image there is
this machine's /usr with the interpreter and truba of these tests, all of it read only. Not here: seccomp, limits of
memory and CPU, the scheduler, the network policy.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tests.clustered.namespaces import Hosts, lacking
from tests.deploy.manifests import documents, only, pod, pod_names
from tests.deploy.support import ENVIRONMENT, LENT, PYTHON, ROOT
from truba.processes.tether import tethered
from truba.testing.nats import ServersFailed, find_server

Secrets = Mapping[str, Mapping[str, bytes]]
"""Secret -> key -> value."""

BIN = "/opt/truba/bin"
DEVICES = ("null", "zero", "full", "random", "urandom")
LAST_STAGE = (ROOT / "deploy/docker/Dockerfile").read_text().rpartition("\nFROM ")[2]
POLL_S = 0.1


def unable() -> str:
    """What this machine lacks for pods; empty: nothing."""
    if missing := [tool for tool in ("chroot", "setpriv", "mount") if shutil.which(tool) is None]:
        return f"pods need the programs {', '.join(missing)}"
    try:
        find_server()
    except ServersFailed as error:
        return str(error)
    return lacking()


def _instruction(name: str) -> str:
    (line,) = (line for line in LAST_STAGE.splitlines() if line.startswith(f"{name} "))
    return line.removeprefix(f"{name} ")


WORKDIR = _instruction("WORKDIR")


class Pod:
    """The pod of that ordinal. Each `start` is a new container; its volume, in `directory`, lives on."""

    def __init__(
        self, manifest: Path, ordinal: int, host: int, hosts: Hosts, secrets: Secrets, directory: Path
    ) -> None:
        self.name = pod_names(manifest)[ordinal]
        self.address = hosts.address(host)
        self.names: dict[str, str] = {}
        """Host name -> address, as the cluster's DNS would answer."""
        self._manifest = manifest
        self._spec: dict[str, Any] = pod(manifest)["spec"]
        self._run = hosts.run(host)
        self._secrets = secrets
        self._directory = directory / self.name
        self._directory.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._lives = 0
        (self.main,) = self._spec["containers"]
        self.names_of_its_own = [f"{self.name}.{only(manifest, 'StatefulSet')['spec']['serviceName']}.truba.svc"]

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The init containers, one after another, then the container, which runs when this returns, ready or not."""
        assert self._process is None
        self._lives += 1
        volumes = self._directory / f"volumes-{self._lives}"
        for container in self._spec.get("initContainers", []):
            done = subprocess.run(
                self._command(container, volumes), capture_output=True, text=True, timeout=30, check=False
            )
            assert done.returncode == 0, f"{self.name}, {container['name']}: {done.stderr}"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(self.main, volumes), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def log(self) -> Path:
        """Of this life."""
        return self._directory / f"log-{self._lives}"

    def stop(self) -> int:
        """As a kubelet does; its exit code. subprocess.TimeoutExpired: it took longer than the manifest gives it."""
        assert self._process is not None
        os.kill(self._first(), signal.SIGTERM)
        code = self._process.wait(self._spec["terminationGracePeriodSeconds"])
        self._process = None
        return code

    def kill(self) -> None:
        """SIGKILL, if it runs; all of it is gone when this returns."""
        if self._process is not None and self._process.poll() is None:
            for pid in self._children() or [self._process.pid]:
                os.kill(pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def probe(self, which: str) -> bool:
        """One look, from another host: `startupProbe`, `readinessProbe`, `livenessProbe`."""
        asked = self.main[which]["httpGet"]
        (port,) = (port["containerPort"] for port in self.main["ports"] if port["name"] == asked["port"])
        url = f"{asked.get('scheme', 'HTTP').lower()}://{self.address}:{port}{asked['path']}"
        unverified = ssl._create_unverified_context()  # noqa: SLF001 - as the kubelet does
        try:
            with urlopen(url, context=unverified, timeout=self.main[which].get("timeoutSeconds", 1)) as answer:
                return 200 <= answer.status < 400
        except (URLError, OSError):
            return False

    def become_ready(self, patience_s: float = 60.0) -> None:
        """Until it has started, lives and is ready, by its probes."""
        for which in ("startupProbe", "livenessProbe", "readinessProbe"):
            self.wait(lambda which=which: self.probe(which), f"its {which}", patience_s)

    def wait(self, true: Callable[[], bool], what: str, patience_s: float = 60.0) -> None:
        assert self._process is not None
        until_s = time.monotonic() + patience_s
        while not true():
            ended = self._process.poll()
            assert ended is None, f"{self.name} has ended with {ended}: {self.log.read_text()}"
            assert time.monotonic() < until_s, f"{self.name}: {what} did not come: {self.log.read_text()}"
            time.sleep(POLL_S)

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the container, as the container's user, as `kubectl exec` runs it."""
        inside = ["nsenter", f"--target={self._first()}", "--mount", "--pid", "--net", "--ipc", "--uts", "--root"]
        return subprocess.run(
            [*inside, *self._as_its_user(self.main, command)], capture_output=True, text=True, timeout=60, check=False
        )

    def _first(self) -> int:
        """Process 1 of the container, by its number outside."""
        (first,) = self._children()
        return first

    def _children(self) -> list[int]:
        assert self._process is not None
        holder = self._process.pid
        return [int(pid) for pid in Path(f"/proc/{holder}/task/{holder}/children").read_text().split()]

    # -- what a container is made of -------------------------------------------------------------------------------

    def _command(self, container: dict[str, Any], volumes: Path) -> list[str]:
        root = self._directory / f"root-{self._lives}-{container['name']}"
        steps = [*self._mounts(container, root, volumes)]
        steps += [f"exec chroot {root} {shlex.join(self._as_its_user(container, self._argv(container)))}"]
        apart = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
        return tethered(*self._run, *apart, "sh", "-euc", "\n".join(steps))

    def _argv(self, container: dict[str, Any]) -> list[str]:
        entrypoint = container.get("command") or [_instruction("ENTRYPOINT").strip('[]"')]
        return [*entrypoint, *container.get("args", [])]

    def _as_its_user(self, container: dict[str, Any], argv: Any) -> list[str]:
        pod_wide, own = self._spec["securityContext"], container["securityContext"]
        user, group, shared = (pod_wide[name] for name in ("runAsUser", "runAsGroup", "fsGroup"))
        assert pod_wide["runAsNonRoot"]
        assert user != 0
        rights = [f"--reuid={user}", f"--regid={group}", f"--groups={shared}", "--inh-caps=-all"]
        rights += ["--bounding-set=-all"] * (own["capabilities"] == {"drop": ["ALL"]})
        rights += ["--no-new-privs"] * (own["allowPrivilegeEscalation"] is False)
        variables = [*shlex.split(_instruction("ENV")), f"PATH={BIN}:/usr/bin:/bin", *self._variables(container)]
        return ["/usr/bin/setpriv", *rights, "/usr/bin/env", "-i", "-C", WORKDIR, *variables, *argv]

    def _variables(self, container: dict[str, Any]) -> Iterator[str]:
        for variable in container.get("env", []):
            match variable["valueFrom"]:
                case {"fieldRef": {"fieldPath": "metadata.name"}}:
                    yield f"{variable['name']}={self.name}"
                case {"secretKeyRef": {"name": secret, "key": key}}:
                    yield f"{variable['name']}={self._secrets[secret][key].decode()}"
                case other:
                    raise NotImplementedError(f"{other} of {self._manifest.name}")

    def _mounts(self, container: dict[str, Any], root: Path, volumes: Path) -> Iterator[str]:
        """Steps of a shell, which is the only one to see what they do."""
        image = self._image(root)
        read_only = container["securityContext"]["readOnlyRootFilesystem"]
        yield f"mount --bind {root} {root}"
        for source, target in image.items():
            yield f"mount --bind {source} {root}{target}"
            yield f"mount -o remount,bind,ro {root}{target}"
        for device in DEVICES:
            (root / "dev" / device).touch()
            yield f"mount --bind /dev/{device} {root}/dev/{device}"
        yield f"mount -t proc proc {root}/proc"
        for mount in container["volumeMounts"]:
            source = self._volume(mount["name"], volumes)
            source = (source / mount["subPath"]).resolve() if "subPath" in mount else source
            target = root / mount["mountPath"].lstrip("/")
            if source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            yield f"mount --bind {source} {target}"
            if mount.get("readOnly"):
                yield f"mount -o remount,bind,ro {target}"
        if read_only:
            yield f"mount -o remount,bind,ro {root}"

    def _image(self, root: Path) -> dict[str, str]:
        """The rest of it is made below `root`; these parts of the machine are to be seen in it: where -> where."""
        for directory in ("/dev", "/etc", "/proc", "/tmp", "/usr", BIN, WORKDIR, *LENT.values()):
            (root / directory[1:]).mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        for link in ("bin", "lib", "lib64", "sbin"):
            (root / link).symlink_to(f"usr/{link}")
        truba, nats, hosts = root / BIN[1:] / "truba", root / BIN[1:] / "nats-server", root / "etc" / "hosts"
        truba.write_text(f'#!/bin/sh\nexec env {ENVIRONMENT} {PYTHON} -m truba "$@"\n')
        truba.chmod(0o755)
        nats.touch()
        hosts.write_text("".join(f"{address} {name}\n" for name, address in self.names.items()))
        return {"/usr": "/usr", find_server(): f"{BIN}/nats-server", **LENT}

    def _volume(self, name: str, volumes: Path) -> Path:
        """Where it is outside; made if it is not there yet, of the owner and mode that a kubelet gives it."""
        claims = only(self._manifest, "StatefulSet")["spec"]["volumeClaimTemplates"]
        if name in {claim["metadata"]["name"] for claim in claims}:
            path = self._directory / f"claim-{name}"
            if not path.exists():
                path.mkdir(parents=True)
                self._share(path, 0o2775)
            return path
        path = volumes / name
        if path.exists():
            return path
        path.mkdir(parents=True)
        (volume,) = (volume for volume in self._spec["volumes"] if volume["name"] == name)
        match volume:
            case {"emptyDir": _}:
                self._share(path, 0o2777)
            case {"configMap": {"name": wanted}}:
                (data,) = (
                    document["data"]
                    for document in documents(self._manifest)
                    if document["kind"] == "ConfigMap" and document["metadata"]["name"] == wanted
                )
                self._write(path, {key: value.encode() for key, value in data.items()}, 0o644)
            case {"secret": {"secretName": secret, "defaultMode": mode}}:
                self._write(path, self._secrets[secret], mode)
            case other:
                raise NotImplementedError(f"{other} of {self._manifest.name}")
        return path

    def _write(self, path: Path, files: Mapping[str, bytes], mode: int) -> None:
        """By links, so that all files of a later version appear at once."""
        version = path / "..version"
        version.mkdir()
        (path / "..data").symlink_to(version.name)
        for key, value in files.items():
            (version / key).write_bytes(value)
            self._share(version / key, mode)
            (path / key).symlink_to(f"..data/{key}")
        for directory in (version, path):
            self._share(directory, 0o2755)

    def _share(self, path: Path, mode: int) -> None:
        os.chown(path, 0, self._spec["securityContext"]["fsGroup"])
        path.chmod(mode)
