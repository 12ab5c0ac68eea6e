"""TLS as its users have it: a pipe as a process, clients, operators and handlers, each verified, each refusal clear."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import truba
from tests.service.process import Child, Server, Servers, cli, kind
from tests.service.wire import Listener, Wire, until
from tests.tls.certificates import Authority, without_ca
from truba import sync
from truba.errors import BadRequest, ConfigError, Unavailable
from truba.tls import Tls

HANDLERS = """
def finish(repeat):
    repeat.session.append(b"done")
HANDLERS = {7: finish}
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls_table(tls: Tls, client_ca: Path | None = None) -> str:
    """[node.tls], behind all other lines of [node]."""
    ca = f'client_ca = "{client_ca}"\n' if client_ca else ""
    return f'[node.tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n{ca}'


def url_of(server: Server, user: str = "") -> str:
    return f"trubas://{user}127.0.0.1:{server.port}"


async def used(url: str, **options: Any) -> None:
    """One session, opened and deleted."""
    async with truba.connect(url, **{"connect_timeout_s": 0.3} | options) as pipe, pipe.session(7, b"a") as session:
        await session.append(b"b")


async def refusal(url: str, **options: Any) -> str:
    with pytest.raises((Unavailable, BadRequest)) as caught:
        await used(url, connect_timeout_s=0, **options)  # tried once: of many of one cause not each is logged
    return str(caught.value)


async def test_clients_and_operators(pipes: Servers, authority: Authority) -> None:
    tls = authority.issue("127.0.0.1")
    server = pipes.start(node=tls_table(tls))
    await used(url_of(server), tls=authority.believed)
    with sync.connect(url_of(server), tls=authority.believed) as pipe, pipe.session(7) as session:
        session.append(b"c")
    url = url_of(server)
    assert cli("ls", "--url", url, "--ca", str(authority.pem)).returncode == 0
    assert cli("ls", TRUBA_URL=url, TRUBA_CA=str(authority.pem)).returncode == 0
    assert server.terminate() == 0


def test_a_command_says_what_is_wrong_with_a_certificate_and_what_to_do(pipes: Servers, authority: Authority) -> None:
    """The pipe is there, and runs: to ask whether it does would send its user the wrong way."""

    def told(server: Server, host: str = "127.0.0.1", *options: str) -> str:
        done = cli("ls", "--url", url_of(server).replace("127.0.0.1", host), *options)
        assert done.returncode == 3
        assert f"truba: no TLS connection to {host}:{server.port}: TLS: " in done.stderr
        assert "is it running" not in done.stderr
        return done.stderr

    server = pipes.start(node=tls_table(authority.issue("127.0.0.1"), authority.pem))
    late = pipes.start(node=f'data = "late"\n{tls_table(authority.issue("127.0.0.1", expired=True, file="late"))}',
                       name="late.toml")  # fmt: skip
    plain = pipes.start(node='data = "plain"', name="plain.toml")
    ca = "--ca", str(authority.pem)
    not_accepted, ours = "the other side's certificate is not accepted", "does not accept our certificate"
    untrusted = told(server)
    assert f"{not_accepted}: " in untrusted  # and OpenSSL's words for it
    assert "; name the file of its authority: --ca of a command, ca elsewhere; nothing was sent" in untrusted
    assert f"{not_accepted}: certificate has expired; it needs a new one" in told(late, "127.0.0.1", *ca)
    other_name = told(server, "localhost", *ca)
    assert f"{not_accepted}: Hostname mismatch" in other_name
    assert "dial a name that it holds, or have one issued that holds this one" in other_name
    assert f"{ours}: certificate required; show one that it accepts: --certificate" in told(server, "127.0.0.1", *ca)
    assert "what answers there does not speak TLS" in told(plain, "127.0.0.1", *ca)


async def test_wrong_ways_to_come_in_are_told_clearly(pipes: Servers, authority: Authority, tmp_path: Path) -> None:
    server = pipes.start(node=tls_table(authority.issue("127.0.0.1"), authority.pem))
    plain = pipes.start(node='data = "other"', name="other.toml")
    stranger = Authority(tmp_path, "other").issue("ann")
    ann, late = authority.issue("ann"), authority.issue("late", expired=True)
    url = url_of(server)
    await used(url, tls=ann)
    assert "does not accept our certificate: certificate required" in await refusal(url, tls=authority.believed)
    wrong = Tls(authority.pem, stranger.certificate, stranger.key)
    assert "does not accept our certificate: unknown ca" in await refusal(url, tls=wrong)
    assert "does not accept our certificate: certificate expired" in await refusal(url, tls=late)
    assert "certificate is not accepted: " in await refusal(url, tls=Tls(stranger.ca, ann.certificate, ann.key))
    assert "not accepted: Hostname mismatch" in await refusal(url.replace("127.0.0.1", "localhost"), tls=ann)
    assert "this port speaks TLS and nothing else" in await refusal(server.url)
    assert "does not speak TLS" in await refusal(url_of(plain), tls=ann)
    with pytest.raises(ConfigError, match="does not speak TLS, and tls was given"):
        truba.connect(server.url, tls=ann)
    told = [line["error"] for line in server.logged if line["event"] == "no TLS connection"]
    assert [bool(error) for error in told]
    for part in ("shows no certificate", "self-signed certificate|unable to get", "expired", "does not speak TLS"):
        assert any(word in error for error in told for word in part.split("|")), (part, told)
    await used(url, tls=ann)


def write(path: Path | str | None, data: bytes) -> None:
    """In the place of what is there, as one act."""
    assert path is not None
    new = Path(path).with_suffix(".new")
    new.write_bytes(data)
    new.rename(path)


async def test_new_certificates_are_taken_up_and_broken_ones_are_not(
    pipes: Servers, authority: Authority, tmp_path: Path
) -> None:
    """On both sides, without a restart; who is connected stays so."""
    tls = authority.issue("127.0.0.1")
    server = pipes.start(node=tls_table(tls))
    other = Authority(tmp_path, "other")
    theirs = other.issue("127.0.0.1")
    believed = tmp_path / "believed.pem"
    believed.write_bytes(authority.pem.read_bytes())
    staying = await truba.connect(url_of(server), tls=Tls(ca=believed))
    write(tls.certificate, b"half a certificate")
    await used(url_of(server), tls=authority.believed)
    server.wait_line("cannot be used; those before stay in force")
    for old, new in ((tls.certificate, theirs.certificate), (tls.key, theirs.key)):
        write(old, Path(str(new)).read_bytes())  # noqa: ASYNC240 - of a test
    await used(url_of(server), tls=other.believed)
    assert "not accepted" in await refusal(url_of(server), tls=authority.believed)
    async with staying.session(7) as session:
        await session.append(b"still there")
    believed.write_bytes(other.pem.read_bytes())
    staying._link.transport.abort()  # noqa: SLF001 - as if it broke
    async with staying.session(7) as session:
        await session.append(b"there again")
    await staying.close()


@pytest.fixture
def service(pipes: Servers, authority: Authority, tmp_path: Path) -> tuple[Child, str]:
    """`truba handlers` with a certificate, that asks pipes for one; and its address."""
    (tmp_path / "finishing.py").write_text(HANDLERS)
    tls = authority.issue("127.0.0.1", file="handlers")
    command = [sys.executable, "-m", "truba", "handlers", "finishing:HANDLERS", "--listen", "127.0.0.1:0", "--json"]
    command += ["--certificate", str(tls.certificate), "--key", str(tls.key), "--client-ca", str(authority.pem)]
    child = Child(command, cwd=tmp_path)
    pipes._running.append(child)  # noqa: SLF001 - ended with the pipes
    return child, json.loads(child.wait_line('"ready"'))["listen"]


def toml(tls: Tls) -> str:
    parts = {"ca": tls.ca, "certificate": tls.certificate, "key": tls.key}
    return "tls = { " + ", ".join(f'{key} = "{path}"' for key, path in parts.items() if path) + " }\n"


def test_a_handler_behind_tls_finishes(pipes: Servers, authority: Authority, service: tuple[Child, str]) -> None:
    _, address = service
    pipe = authority.issue("pipe")
    server = pipes.start(kind(handler=f"trubas://{address}") + toml(pipe))
    with Wire.dial(server.address) as client:
        with Wire.dial(server.address) as leaving:
            left = leaving.ask("NEW", "7", "a")
        until(lambda: client.answered(b"SHOW %b\r\n" % left), lambda found: "NOSESSION" in str(found))
    done = cli("check", "--config", str(server.config))
    assert f"trubas://{address} (transfer)" in done.stdout
    assert "problem  handler" not in done.stdout


@pytest.mark.parametrize("which", ["no certificate", "another authority", "plain"])
def test_a_route_that_is_refused_says_why(
    pipes: Servers, authority: Authority, service: tuple[Child, str], tmp_path: Path, which: str
) -> None:
    child, address = service
    theirs = Authority(tmp_path, "other").issue("pipe")
    text, to_pipe, to_service = {
        "no certificate": (toml(authority.believed), "does not accept our certificate", "shows no certificate"),
        "another authority": (toml(theirs), "certificate is not accepted", "unknown ca"),
        "plain": ("", "Does it speak TLS", "does not speak TLS"),
    }[which]
    scheme = "trubas" if text else "truba"
    server = pipes.start(kind(handler=f"{scheme}://{address}") + text)
    assert to_pipe in server.wait_line("handler unreachable")
    assert to_service in child.wait_line("no TLS connection")
    done = cli("check", "--config", str(server.config))
    if text:
        assert to_pipe in done.stdout


def test_a_route_to_a_service_without_tls(pipes: Servers, authority: Authority, listener: Listener) -> None:
    route = listener.url.replace("truba:", "trubas:")
    server = pipes.start(kind(handler=route) + toml(authority.believed))
    wire = listener.accept()
    wire.send(b"+OK\r\n")
    assert "does not speak TLS" in server.wait_line("handler unreachable")


async def test_the_library_s_service_too(authority: Authority) -> None:
    async def finish(repeat: truba.RepeatData) -> None: ...

    with pytest.raises(ConfigError, match=r"listening on 0\.0\.0\.0:0 would be plain text beyond this machine"):
        await truba.serve_handlers({7: finish}, "0.0.0.0:0")
    async with truba.serve_handlers({7: finish}, "0.0.0.0:0", insecure=True):
        pass
    tls = without_ca(authority.issue("127.0.0.1"))
    async with truba.serve_handlers({7: finish}, "0.0.0.0:0", tls=tls) as server:
        told: list[str] = []
        server.on_trouble = lambda what, error: told.append(what)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.address.rpartition(":")[2]))
        writer.write(b">4\r\n$5\r\nhello\r\n")
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        assert "does not speak TLS" in told[0]
