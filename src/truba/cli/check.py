"""`truba check`: everything that `serve` would refuse, told without starting, and a try of each handler.

Changes nothing: a missing data directory is not made, no session is handed over.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from truba.backup.marks import refuse_unfit
from truba.cli.failure import PROBLEM
from truba.cli.options import config_option, insecure_option, json_option, say_json
from truba.errors import ConfigError, DataDamaged, DataError, DataLocked

if TYPE_CHECKING:
    from truba.config import Config
    from truba.webhook import Webhook


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `problem` is empty when it is well."""

    what: str
    detail: str
    problem: str = ""


@click.command
@config_option
@insecure_option
@json_option
def check(config_path: Path, insecure: bool, as_json: bool) -> None:
    """Judge a configuration without starting anything, and try what it names.

    Looks at every key of the file, at the data directory (usable, not held by a running pipe, undamaged), imports the
    objects that the file names, and connects to each handler to hear which kinds it serves; a webhook is sent a signed
    ping, which it answers with 2xx. Exit code 1: a problem.

    \b
    Examples:
      truba check
      truba check --config /etc/truba.toml --json
    """
    from truba.config import ConfigProblems, load

    try:
        config = load(config_path, insecure=insecure)
        sys.path.insert(0, str(config_path.absolute().parent))
    except ConfigProblems as bad:
        if as_json:
            problems = [asdict(problem) | {"file": str(problem.file)} for problem in bad.problems]
            say_json({"ok": False, "problems": problems, "findings": []})
        else:
            click.echo(str(bad))
        click.get_current_context().exit(PROBLEM)
    findings = asyncio.run(_look(config, config_path))
    well = not any(finding.problem for finding in findings)
    if as_json:
        say_json({"ok": well, "problems": [], "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            mark = click.style("problem", fg="red") if finding.problem else click.style("ok     ", fg="green")
            click.echo(f"{mark}  {finding.what}  {finding.detail}{': ' * bool(finding.problem)}{finding.problem}")
    click.get_current_context().exit(0 if well else PROBLEM)


async def _look(config: Config, path: Path) -> list[Finding]:
    kinds = ", ".join(f"{kind.number} {kind.name}" for kind in config.kinds)
    findings = [Finding("configuration", f"{path} (kinds: {kinds})"), _data(config)]
    findings += _tls(config)
    findings += _objects(config)
    findings += [finding async for finding in _hooks(config)]
    findings += _admin(config)
    findings += _cluster(config)
    findings += await _stream(config)
    findings += [finding async for finding in _handlers(config)]
    return findings


def _data(config: Config) -> Finding:
    directory = config.node.data
    try:
        if not directory.exists():
            nearest = next(parent for parent in directory.parents if parent.exists())
            if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
                raise DataError(f"it is not there, and this user cannot make it in {nearest}")
            return Finding("data", f"{directory} (will be made)")
        if not directory.is_dir():
            raise DataError("this is no directory; name another one")
        refuse_unfit(directory)
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise DataError("this user may not read and write it; change its owner or mode")
        from truba.compose import refuse_half

        refuse_half(directory)
        if not (directory / "log").exists():
            return Finding("data", f"{directory} (empty)")
        _refuse_held(directory / "log" / "LOCK")
        from truba.log import inspect as log_inspect
        from truba.log.damage import LogDamaged
        from truba.store.mark import read_mark

        report = log_inspect.verify(directory / "log")
        if report.damage:
            raise LogDamaged(report.damage, directory / "log")
        mark, tail = read_mark(directory / "store"), report.tail
        if mark is not None and mark.seq > tail.seq:
            raise DataDamaged(
                f"the store holds the state of event {mark.term}-{mark.seq}, the log ends with {tail.term}-{tail.seq}"
            )
    except (DataError, OSError) as error:
        return Finding("data", str(directory), str(error))
    return Finding("data", str(directory))


def _refuse_held(lock: Path) -> None:
    """DataLocked when a running pipe holds the directory. Holds the lock itself for an instant."""
    if lock.exists():
        fd = os.open(lock, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = lock.read_text().strip()
            raise DataLocked(f"process {holder} holds it; a second pipe on it would be refused") from error
        finally:
            os.close(fd)


def _tls(config: Config) -> Iterator[Finding]:
    """The files can be used, or the configuration would have been refused: this says who must show what."""
    from truba.config import plain_places

    if config.node.tls is not None:
        who = "clients must show a certificate" if config.node.tls.client_ca else "clients show no certificate"
        yield Finding("tls", f"{config.node.listen} ({who})")
    if config.users:
        yield Finding("users", ", ".join(config.users))
    for place, where in plain_places(config):
        yield Finding("plain text", f"{'.'.join(map(str, place))}: {where} (insecure)")


def _objects(config: Config) -> Iterator[Finding]:
    from truba.configured import load_codec
    from truba.transports.local import load_object

    named = [("transport", path, load_object) for path in config.transports.values()]
    named += [("frontend", frontend.factory, load_object) for frontend in config.node.frontends]
    named += [("authenticator", config.node.authenticator, load_object)] if config.node.authenticator else []
    named += [("codec", path, load_codec) for table in config.kind_tables.values() if (path := table.codec)]
    for what, path, load in named:
        try:
            load(path)
        except ConfigError as error:
            yield Finding(what, path, str(error))
        else:
            yield Finding(what, path)


async def _hooks(config: Config) -> AsyncIterator[Finding]:
    from truba.config import read_webhook

    for kind in config.kinds:
        if isinstance(kind.on_parked, str):
            problem = ""
            try:
                await _ping(read_webhook(*config.parked_webhooks[kind.name]), [kind.number])
            except ConfigError as error:
                problem = str(error)
            yield Finding("parked hook", f"{kind.on_parked} ({kind.name})", problem)
        elif kind.on_parked is not None:
            assert isinstance(kind.on_parked, tuple)  # a file can name nothing else
            yield _program(Path(kind.on_parked[0]), kind.name)


def _program(program: Path, kind: str) -> Finding:
    runs = program.is_file() and os.access(program, os.X_OK)
    problem = "" if runs else "there is no program that this user may run"
    return Finding("parked hook", f"{program} ({kind})", problem)


def _admin(config: Config) -> Iterator[Finding]:
    """Whether what the address of operators needs is installed, and who is let in."""
    admin = config.admin
    if admin is None:
        return
    who = ", ".join([*admin.tokens, *(["operator"] if admin.secret("token") else [])]) or "whoever is on this machine"
    try:
        import truba.administered  # noqa: F401
    except ModuleNotFoundError as error:
        yield Finding("admin", str(admin.listen), f"{error.name} is not installed: pip install 'truba[admin]'")
    else:
        yield Finding("admin", f"{admin.listen} (serves: {who})")


def _cluster(config: Config) -> Iterator[Finding]:
    """What can be told without the servers: who this is, and that certificates and key fit together."""
    cluster = config.cluster
    if cluster is None:
        return
    nodes = ", ".join(f"{name} (this one)" if name == config.node.name else name for name in cluster.nodes)
    yield Finding("cluster", f"nodes: {nodes}; peers are served on {cluster.door(config.node.name)}")
    if cluster.tls_ca_file or cluster.tls_cert_file:
        import ssl

        files = ", ".join(path.name for key, path in cluster.files.items() if key.startswith("tls_"))
        try:
            context = ssl.create_default_context(cafile=cluster.tls_ca_file)
            if cluster.tls_cert_file:
                context.load_cert_chain(cluster.tls_cert_file, cluster.tls_key_file)
        except (ssl.SSLError, OSError) as error:
            yield Finding("cluster tls", files, str(error))
        else:
            yield Finding("cluster tls", files)


CONNECT_S = 3.0
"""For the NATS servers: somebody waits for the answer."""


async def _stream(config: Config) -> list[Finding]:
    """The servers, and the stream if it is there already. It is not made here."""
    if config.cluster is None:
        return []
    from dataclasses import replace

    from truba.clustered.stream import jetstream_settings
    from truba.ports.stream import StreamDown
    from truba.streams.jetstream import JetStream
    from truba.streams.requirements import check as check_stream

    what = ", ".join(config.cluster.servers)
    try:
        stream = await JetStream.connect(replace(jetstream_settings(config), connect_timeout_s=CONNECT_S))
        try:
            if await stream.cluster_id() is None:
                return [
                    Finding(
                        "stream", f"{what}: there is no stream {config.cluster.stream} yet; the first node makes it"
                    )
                ]
            problems = await check_stream(stream)
        finally:
            await stream.close()
    except (ConfigError, StreamDown) as error:
        return [Finding("stream", what, str(error))]
    if problems:
        return [Finding("stream", problem.where, f"{problem.what}; {problem.instead}") for problem in problems]
    return [Finding("stream", f"{what}: stream {config.cluster.stream} is as it must be")]


async def _ping(webhook: Webhook, kinds: Collection[int]) -> None:
    """ConfigError says why nobody answers it."""
    try:
        from truba.transports.notes import ping
        from truba.transports.posting import NotDelivered
    except ModuleNotFoundError as error:
        raise ConfigError(f"webhooks need {error.name}; pip install 'truba[webhook]'") from error
    try:
        await ping(webhook, kinds)
    except NotDelivered as error:
        raise ConfigError(str(error)) from error


async def _handlers(config: Config) -> AsyncIterator[Finding]:
    """Each address once, all at the same time."""
    from truba.address import parse_handler, without_user
    from truba.cli.probe import kinds_served
    from truba.config import read_webhook
    from truba.tls import Contexts
    from truba.transports.local import load_object

    async def try_one(route: str, wanted: dict[int, str]) -> Finding:
        who = f"{without_user(route)} ({', '.join(wanted.values())})"
        scheme, _, rest = route.partition(":")
        try:
            match scheme:
                case "local":
                    function = load_object(rest)
                    if not callable(function):
                        raise ConfigError("this is no function")
                case "truba" | "trubas" | "unix":
                    secret, tls = config.handler_secrets.get(route), config.handler_tls.get(route)
                    contexts = None if tls is None else Contexts(tls, server_side=False)
                    served = await kinds_served(parse_handler(route), secret.read() if secret else b"", contexts)
                    if missing := [f"{number} {name}" for number, name in wanted.items() if number not in served]:
                        raise ConfigError(f"it answers, but does not serve {', '.join(missing)}; it serves {served}")
                case "https" | "http" if route in config.webhooks:
                    await _ping(read_webhook(route, config.webhooks[route]), wanted)
                case _:
                    return Finding("handler", f"{who}: not tried, its transport is your own")
        except ConfigError as error:
            return Finding("handler", who, str(error))
        return Finding("handler", who)

    routes: dict[str, dict[int, str]] = {}
    for kind in config.kinds:
        assert isinstance(kind.handler, str)  # a file can name only routes
        routes.setdefault(kind.handler, {})[kind.number] = kind.name
    for finding in await asyncio.gather(*(try_one(route, wanted) for route, wanted in routes.items())):
        yield finding
