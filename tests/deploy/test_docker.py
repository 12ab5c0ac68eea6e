"""The image: what its Dockerfile copies is enough, and is all; its commands are truba's; a linter finds nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.deploy.support import ROOT
from tests.service.process import NOBODY, Servers, environment, servers
from truba import config
from truba.cli.main import main

DIRECTORY = ROOT / "deploy" / "docker"
DOCKERFILE = DIRECTORY / "Dockerfile"
LINES = DOCKERFILE.read_text().replace("\\\n", "").splitlines()


def instructions(name: str) -> list[str]:
    return [line.strip().removeprefix(f"{name} ") for line in LINES if line.strip().startswith(f"{name} ")]


def copied() -> list[str]:
    """Paths of the checkout that come into the image."""
    return [source for line in instructions("COPY") if not line.startswith("--from") for source in line.split()[:-1]]


def health(url: str) -> int:
    """The exit code of the image's health check, as Docker runs it."""
    (check,) = (line.partition(" CMD ")[2] for line in instructions("HEALTHCHECK"))
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    env = environment() | {"PATH": path, "TRUBA_URL": url}
    return subprocess.run(json.loads(check), env=env, capture_output=True, timeout=60, check=False).returncode


def test_a_linter_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_what_docker_is_sent() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied()) == sorted(sent)


def test_what_is_copied_is_enough_to_build_from(tmp_path: Path) -> None:
    for name in copied():
        source, target = ROOT / name, tmp_path / "src" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", tmp_path, tmp_path / "src"], timeout=100, check=True)
    assert list(tmp_path.glob("truba-*.whl"))


def test_the_command_is_one_of_truba() -> None:
    assert [json.loads(line) for line in instructions("ENTRYPOINT")] == [["truba"]]
    (command,) = (json.loads(line) for line in instructions("CMD") if not line.startswith('["sh"'))
    usage = CliRunner().invoke(main, [command[0], "--help"]).output
    assert all(argument in usage for argument in command if argument.startswith("--"))


def test_it_is_not_root() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, so that Kubernetes can see that it is not root"


def test_health(tmp_path: Path) -> None:
    assert health(NOBODY) == 1
    pipes: Servers
    for pipes in servers(tmp_path):
        assert health(pipes.start().url) == 0
        (tmp_path / "password").write_text("hush")
        locked = pipes.start(node='password_file = "password"\ndata = "other"', name="locked.toml")
        assert health(locked.url) == 0, "it answers, and that is what is asked"


def test_the_configuration_is_good(tmp_path: Path) -> None:
    shutil.copy(DIRECTORY / "truba.toml", tmp_path)
    (tmp_path / "password").write_text("hush")
    loaded = config.load(tmp_path / "truba.toml")
    (volume,) = instructions("VOLUME")
    assert str(loaded.node.data) == volume
    assert str(loaded.node.listen).endswith(f":{instructions('EXPOSE')[0]}")


def test_extras_that_are_named_exist() -> None:
    written = "\n".join(path.read_text() for path in ROOT.glob("deploy/*/*") if path.is_file())
    named = {extra for found in re.findall(r'EXTRAS="?([a-z]+(?:,[a-z]+)*)', written) for extra in found.split(",")}
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"admin", "cluster"} <= named <= set(known)
