"""Each code block of the documentation does what it says, and each command in it exists."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import click
import msgspec
import pytest
import trustme
from click.testing import CliRunner

import truba
from truba import config, passwords
from truba.cli.main import main
from truba.rights import FREE, GROUPS
from truba.types import Cause
from truba.webhook.bodies import decode, read_answer
from truba.wire.verbs import VERBS

SECRETS = {
    ".whsec": f"whsec_{'A' * 43}=\n",
    ".hash": f"{passwords.make(b'hush', b'salt', slow=False)}\n",
}
"""What a file of a secret holds, by its suffix."""

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    page: str
    number: int
    language: str
    text: str


BLOCKS = [
    Block(str(page.relative_to(ROOT)), number, language, text)
    for page in PAGES
    for number, (language, text) in enumerate(FENCE.findall(page.read_text()))
    if "```console\n" not in page.read_text()  # such a page is walked through as a whole: test_walks.py
]


def named(language: str) -> list[object]:
    return [pytest.param(b, id=f"{b.page}:{b.number}") for b in BLOCKS if b.language == language]


@pytest.fixture
def pipe_at_7433(tmp_path: Path) -> Iterator[int]:
    """A real pipe with a kind 7; its port, which the examples get in place of 7433."""
    file = tmp_path / "pipe.toml"
    file.write_text(
        '[node]\ndata = "served"\nlisten = "127.0.0.1:0"\nlog_format = "json"\n'
        '[kinds.transfer]\nnumber = 7\nhandler = "truba://127.0.0.1:9"\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "truba", "serve", "--config", str(file)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        ready = next(json.loads(line) for line in process.stderr if '"ready"' in line)
        yield int(ready["listen"].rpartition(":")[2])
    finally:
        process.terminate()
        process.communicate(timeout=20)


class Secured(NamedTuple):
    port: int
    directory: Path


@pytest.fixture
def secured_pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The pipe of the page on security, with the certificates that its commands make."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("secured")
    page = {block.language: block.text for block in BLOCKS if block.page == "docs/security.md"}
    subprocess.run(["bash", "-ec", page["bash"]], cwd=directory, capture_output=True, timeout=60, check=True)
    for secret in re.findall(r'_file = "(.*?)"', page["toml"]):
        (directory / secret).write_text(SECRETS.get(Path(secret).suffix, "hush\n"))
    (directory / "pipe.toml").write_text(page["toml"].replace('"0.0.0.0:7433"', '"127.0.0.1:0"\nlog_format = "json"'))
    process = subprocess.Popen(
        [sys.executable, "-m", "truba", "serve", "--config", "pipe.toml"],
        cwd=directory, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        ready = next(json.loads(line) for line in process.stderr if '"ready"' in line)
        yield Secured(int(ready["listen"].rpartition(":")[2]), directory)
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("block", named("bash"))
def test_certificates(block: Block, secured_pipe: Secured) -> None:
    """They are what the pipe runs on; five commands, as the page says, and an operator comes in with them too."""
    assert len(block.text.splitlines()) == 5
    options = ["--url", f"trubas://localhost:{secured_pipe.port}", "--ca", "ca.pem", "--user", "operator"]
    options += ["--certificate", "ann.pem", "--key", "ann.key"]

    def ls(*more: str, password: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "truba", "ls", *options, *more],
            cwd=secured_pipe.directory, env=os.environ | {"TRUBA_PASSWORD": password},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = ls(password="hush")
    assert done.returncode == 0, done.stderr
    assert ls(password="wrong").returncode == 5


def test_the_table_of_groups_is_that_of_the_rights() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    told = {
        group: frozenset(re.findall(r"`([A-Z]+)`", verbs))
        for group, verbs in re.findall(r"^\| (`\w+`|everybody who is known) \| (.*) \|$", page, re.MULTILINE)
    }
    known = told.pop("everybody who is known")
    assert known == FREE
    assert {group.strip("`"): verbs for group, verbs in told.items() if verbs} == dict(GROUPS)


@pytest.mark.parametrize("block", named("python"))
def test_python(block: Block, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = block.text
    if "trubas://" in text:  # of a page that makes the certificates too
        secured: Secured = request.getfixturevalue("secured_pipe")
        shutil.copytree(secured.directory, tmp_path, dirs_exist_ok=True)
        text = text.replace(":7433", f":{secured.port}")
    if ":7433" in text:
        text = text.replace(":7433", f":{request.getfixturevalue('pipe_at_7433')}")
    (tmp_path / "example.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "finishing" in text and "open(" in text:
        assert "finishing 1-2 [b'take 5 from A, give 5 to B', b'taken']" in done.stdout


@pytest.mark.parametrize("block", named("toml"))
def test_toml(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = block.text
    if "[kinds." not in text:  # an excerpt
        text += '\n[kinds.transfer]\nnumber = 7\nhandler = "truba://127.0.0.1:7434"\n'
    (tmp_path / "truba.toml").write_text(text)
    for secret in re.findall(r'_file = "(.*?)"', block.text):
        path = tmp_path / secret
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRETS.get(path.suffix, "hush, and not a word of it\n"))
    issued = trustme.CA().issue_cert("10.0.0.1", "pipe.example")
    for file in set(re.findall(r'(?:ca|certificate|key|client_ca) = "([^"]+\.\w+)"', block.text)):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        issued.private_key_and_cert_chain_pem.write_to_path(path)
    for variable in re.findall(r'_env = "(.*?)"', block.text):
        monkeypatch.setenv(variable, "hush")
    assert config.load(tmp_path / "truba.toml").kinds


@pytest.mark.parametrize("block", named("js"))
def test_javascript(block: Block, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not there: install Node.js 20 or later")
    (tmp_path / "example.mjs").write_text(block.text)
    done = subprocess.run([node, "example.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", named("json"))
def test_json(block: Block) -> None:
    """Each line or table is a body that the pipe posts, with every field of it, or an answer that it takes."""
    for text in re.split(r"\n(?=\{)", block.text.strip()):
        if "type" in (said := json.loads(text)):
            body = decode("application/json", text.encode())
            assert msgspec.to_builtins(body) == said
        else:
            read_answer("application/json", text.encode())


@pytest.mark.parametrize("block", named("sh"))
def test_commands(block: Block) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in block.text.splitlines():
        match shlex.split(line, comments=True):
            case ["make", target, *_]:
                assert target in targets
            case ["truba", name, *arguments]:
                grouped = name in ("cluster", "log", "user") or arguments[:1] == ["verify"]
                inner = arguments[:1] if grouped else ["make"] if name == "backup" else []
                usage = CliRunner().invoke(main, [name, *inner, "--help"])
                assert usage.exit_code == 0
                for option in (argument for argument in arguments if argument.startswith("--")):
                    assert option in usage.output
            case []:
                pass
            case other:
                pytest.fail(f"who runs {other}?")


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, timeout=60, check=True)


def make_certificates(directory: Path) -> None:
    """An authority and a server's certificate, for this test only."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(directory, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    openssl(directory, "req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=a")
    (directory / "names").write_text("subjectAltName=IP:10.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl(directory, "x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem")


@pytest.mark.parametrize("block", named("conf"))
def test_nats_server_conf(block: Block, tmp_path: Path) -> None:
    """By the server itself, with throw-away certificates in the place of those that the page names."""
    server = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if server is None or shutil.which("openssl") is None:
        pytest.skip("needs nats-server and openssl, and one of them is not installed")
    make_certificates(tmp_path)
    text = block.text.replace("/etc/nats/tls", str(tmp_path)).replace("/var/lib/nats", str(tmp_path / "store"))
    (tmp_path / "nats-server.conf").write_text(text)
    (tmp_path / "passwords.conf").write_text('TRUBA_PASSWORD: "ta"\nSYS_PASSWORD: "sb"\n')

    def judged() -> subprocess.CompletedProcess[str]:
        command = [server, "-t", "-c", "nats-server.conf"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)

    done = judged()
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stderr
    (tmp_path / "server.pem").unlink()  # it does look at the certificates
    assert judged().returncode != 0


def test_every_language_of_a_block_has_its_test() -> None:
    assert {block.language for block in BLOCKS} <= {"python", "js", "json", "toml", "sh", "bash", "conf"}


def test_the_table_of_errors_is_the_tree() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text()
    told = {
        name: (happened, again)
        for names, happened, again in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\w+) \| (\w+) \|", page, re.MULTILINE)
        for name in re.findall(r"\w+", names)
    }
    assert told == {
        kind.__name__: (kind.happened, kind.again) for kind in vars(truba.errors)["OPERATION_ERRORS"].values()
    }


def test_the_table_of_causes_has_all_of_them() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text()
    assert re.findall(r'^\| `"(\w+)"` \|', page, re.MULTILINE) == [cause.value for cause in Cause]


@pytest.mark.parametrize("name", ["connect", "serve_handlers"])
def test_the_tables_of_options_have_all_of_them(name: str) -> None:
    page = (ROOT / "docs" / "python-api.md").read_text()
    table = re.search(rf"Options of `{name}`:\n\n((?:\|.*\n)+)", page)
    assert table is not None
    told = {
        option for row in re.findall(r"^\| (`.*?) \|", table[1], re.MULTILINE) for option in re.findall(r"\w+", row)
    }
    first, *options = inspect.signature(getattr(truba, name)).parameters
    assert told == set(options), f"beside {first}"


def names(command: click.Command | None) -> list[str]:
    """Of the commands in it; of one that has none, its own: nothing."""
    if not isinstance(command, click.Group):
        return [""]
    context = click.Context(command)
    inside = command.list_commands(context)
    return [f"{name} {inner}".strip() for name in inside for inner in names(command.get_command(context, name))]


def test_each_command_has_one_row() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    rows = re.findall(r"^\| `truba ([a-z -]+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(names(main))


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tests_that_the_guarantees_name_exist() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    for path in re.findall(r"`(tests/[\w/.]+)", page):
        assert (ROOT / path).exists(), path


def test_every_verb_has_its_row() -> None:
    page = (ROOT / "docs" / "wire-protocol.md").read_text()
    rows = re.findall(r"^\| (`[A-Z].*?) \|", page, re.MULTILINE)
    told = {verb for row in rows for verb in re.findall(r"`([A-Z]+)", row)}
    assert {verb.decode() for verb in VERBS} <= told


def test_the_picture_says_what_it_shows() -> None:
    """To whoever cannot see it; and it is what a browser can read."""
    root = ElementTree.parse(ROOT / "docs" / "pictures" / "pipe.svg").getroot()
    assert {"title", "desc"} <= {child.tag.rpartition("}")[2] for child in root}
