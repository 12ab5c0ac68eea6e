"""Loading: the defaults, the conversion to kinds, and every refusal with its line and its remedy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from truba import kinds
from truba.config import Address, Config, ConfigProblems, load, plain_places, read_secret, read_webhook
from truba.errors import ConfigError
from truba.webhook import Webhook

KIND = '[kinds.transfer]\nnumber = 7\nhandler = "truba://127.0.0.1:7434"\n'


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "truba.toml"


def loaded(path: Path, text: str) -> Config:
    path.write_text(text)
    return load(path)


def problems(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigProblems) as caught:
        load(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


def test_the_least_configuration_has_the_defaults_of_kind(write: Path) -> None:
    config = loaded(write, KIND)
    assert config.kinds == (kinds.Kind(7, "transfer", "truba://127.0.0.1:7434"),)
    assert config.node.data == write.parent / "data"
    assert config.node.listen == Address("127.0.0.1", 7433)
    assert config.node.unix is None


def test_everything_said_is_taken(write: Path) -> None:
    (write.parent / "secret").write_text("hush\n")
    (write.parent / "password").write_text("open sesame\n")
    config = loaded(
        write,
        """
        [node]
        data = "/var/lib/truba"
        listen = ""
        unix = "truba.sock"
        password_file = "password"
        name = "a-1"
        grace_max = 30
        checkpoint = "1MiB"
        segment = 65536
        reserve = 0
        connections_max = 7
        request_bytes_max = "2MiB"
        output_bytes_max = "64KiB"
        stop_timeout = "500ms"
        log_level = "debug"
        log_format = "json"
        frontends = [{ factory = "mine:Frontend", options = { port = 1 } }]
        [transports]
        amqp = "mine.amqp:make"
        [kinds.b]
        number = 4294967295
        handler = "amqp://queue"
        [kinds."a.b"]
        number = 0
        handler = "truba://[::1]:7434"
        handler_secret_file = "secret"
        recovery_delay = "1s"
        jitter = 0
        backoff = { base = "2s", factor = 1.5, cap = "1h" }
        max_attempts = 0
        max_age = "1d"
        handler_timeout = "2m"
        idle_timeout = "3m"
        concurrency = 1
        record_max = "1KiB"
        session_max = "2KiB"
        records_max = 3
        rate = "30/m"
        on_parked = ["/usr/bin/page", "--team", "money"]
        breaker = { failures = 5, open_for = "2s", cap = "1m" }
        """,
    )
    node, (first, second) = config.node, config.kinds
    assert (node.data, node.listen, node.unix) == (Path("/var/lib/truba"), None, write.parent / "truba.sock")
    assert (node.grace_max, node.segment, node.stop_timeout, node.reserve) == (30.0, 65536, 0.5, 0)
    assert node.frontends[0].factory == "mine:Frontend"
    assert node.frontends[0].options == {"port": 1}
    assert node.password_file is not None
    assert read_secret(node.password_file) == b"open sesame"
    assert config.transports == {"amqp": "mine.amqp:make"}
    assert config.handler_secrets == {"truba://[::1]:7434": (write.parent / "secret", None)}
    assert second.handler == "amqp://queue"
    assert first == kinds.Kind(
        0,
        "a.b",
        "truba://[::1]:7434",
        1.0,
        0.0,
        kinds.Backoff(2.0, 1.5, 3600.0),
        0,
        86400.0,
        120.0,
        180.0,
        1,
        1024,
        2048,
        3,
        0.5,
        kinds.Breaker(5, 2.0, 60.0),
        ("/usr/bin/page", "--team", "money"),
    )


@pytest.mark.parametrize("written", ["unix:/run/a.sock", "unix:///run/a.sock", "unix:/run//a.sock"])
def test_a_route_to_a_unix_socket_has_one_form(write: Path, written: str) -> None:
    """Kinds with the same socket share one connection, however it is written. Nothing of it leaves this machine."""
    write.write_text(f'[kinds.a]\nnumber = 1\nhandler = "{written}"\nhandler_secret_file = "secret"')
    (write.parent / "secret").write_text("hush")
    config = load(write)
    assert [kind.handler for kind in config.kinds] == ["unix:/run/a.sock"]
    assert list(config.handler_secrets) == ["unix:/run/a.sock"]
    assert list(plain_places(config)) == []


def test_the_command_line_overrules(write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write_text(KIND)
    monkeypatch.chdir("/")
    config = load(write, listen="127.0.0.1:1", data=Path("elsewhere"))
    assert (config.node.listen, config.node.data) == (Address("127.0.0.1", 1), Path("/elsewhere"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: kinds: there is no kind; write a table such as [kinds.transfer]"),
        ("\n[kinds]", "2: kinds: there is no kind; write a table such as [kinds.transfer]"),
        (KIND + "backof = 1", '4: kinds.transfer.backof: unknown key; write "backoff"'),
        (KIND + "backoff = {fctor = 1}", '4: kinds.transfer.backoff.fctor: unknown key; write "factor"'),
        (KIND + "[nod]", '4: nod: unknown key; write "node"'),
        (KIND + "[node]\nxyzzy = 1", "5: node.xyzzy: unknown key; the keys here are: data, listen,"),
        (KIND + "[[node.frontends]]\nx = 1", "5: node.frontends.0.x: unknown key; the keys here are: factory, options"),
        (KIND + 'jitter = "soon"', "4: kinds.transfer.jitter: 'soon' is not a time; write a time such as \"30s\""),
        (KIND + "jitter = -1", "4: kinds.transfer.jitter: -1 is not a time"),
        (KIND + "handler_timeout = 0", '4: kinds.transfer.handler_timeout: 0 is too small; write "1ms" or more'),
        (
            KIND + '[node]\noutput_bytes_max = "2GiB"',
            "5: node.output_bytes_max: '2GiB' is too large; write \"1GiB\" or less",
        ),
        (KIND + "max_attempts = true", "4: kinds.transfer.max_attempts: true is not a whole number"),
        (KIND + "max_attempts = 1.5", "4: kinds.transfer.max_attempts: 1.5 is not a whole number"),
        (KIND + 'concurrency = "64"', "4: kinds.transfer.concurrency: '64' is not a whole number"),
        (KIND + "concurrency = 0", "4: kinds.transfer.concurrency: 0 is too small; write 1 or more"),
        (KIND + "backoff = {factor = 0.5}", "4: kinds.transfer.backoff.factor: 0.5 is too small; write 1 or more"),
        (KIND + "backoff = {factor = nan}", "4: kinds.transfer.backoff.factor: nan"),
        (KIND + "backoff = {factor = inf}", "4: kinds.transfer.backoff.factor: inf is not a number"),
        (KIND + "breaker = {faliures = 1}", '4: kinds.transfer.breaker.faliures: unknown key; write "failures"'),
        (KIND + "breaker = {failures = -1}", "4: kinds.transfer.breaker.failures: -1 is too small; write 0 or more"),
        (KIND + "on_parked = 'page'", """4: kinds.transfer.on_parked: 'page' is not a command; write its"""),
        (KIND + "on_parked = ['page']", """4: kinds.transfer.on_parked: ['page'] is not a command; write its"""),
        (KIND + "on_parked = []", "4: kinds.transfer.on_parked: [] is not a command"),
        (KIND + "on_parked = ['/bin/page', 3]", "4: kinds.transfer.on_parked: ['/bin/page', 3] is not a command"),
        (KIND + "rate = 100", "4: kinds.transfer.rate: 100 is not a rate; write a rate such as"),
        (KIND + 'rate = "0/s"', "4: kinds.transfer.rate: '0/s' is not a rate"),
        (KIND + "backoff = 3", "4: kinds.transfer.backoff: 3 is not a table"),
        (
            KIND + 'record_max = "65MiB"',
            "4: kinds.transfer.record_max: a record of 65MiB does not fit in a session of 64MiB",
        ),
        (
            KIND + 'record_max = "1MiB"\n[node]\nrequest_bytes_max = "64KiB"',
            "4: kinds.transfer.record_max: a record of 1MiB does not fit in a request of 64KiB",
        ),
        (KIND + 'handler_secret_file = "nope"', "4: kinds.transfer.handler_secret_file: "),
        (KIND + "[node]\nlisten = 7433", "5: node.listen: 7433 is not an address"),
        (KIND + '[node]\nlisten = "a..b:7433"', "5: node.listen: 'a..b:7433' is not an address"),
        ('[kinds.a]\nnumber = 7\nhandler = "truba://a..b:7434"', "3: kinds.a.handler: 'truba://a..b:7434'"),
        ('[kinds.a]\nnumber = 7\nhandler = "truba://a//12:7434"', "3: kinds.a.handler: 'truba://a//12:7434'"),
        ('[kinds.a]\nnumber = 7\nhandler = "https://a..b/x"', "3: kinds.a.handler: 'https://a..b/x'"),
        (
            KIND + '[node]\nlisten = ""',
            "5: node.listen: nothing to listen on; give listen an address, or give unix a path",
        ),
        (KIND + '[node]\ndata = ""', "5: node.data: '' is not a path"),
        (
            KIND + '[node]\nsegment = "10MB"',
            "5: node.segment: '10MB' is no whole number of sectors of 512 bytes; write \"9766KiB\"",
        ),
        (KIND + '[node]\nsegment = "1B"', "5: node.segment: '1B' is too small; write \"64KiB\" or more"),
        (KIND + '[node]\nlog_level = "loud"', '5: node.log_level: \'loud\' will not do; write "debug", "info",'),
        (
            KIND + '[node]\nauthenticator = "x"',
            "5: node.authenticator: 'x' will not do; write \"package.module:object\"",
        ),
        (
            KIND + '[node]\npassword_file = "no"\nauthenticator = "a:b"',
            "6: node.authenticator: there is a password_file",
        ),
        (KIND + '[transports]\namqp = "nothing"', "5: transports.amqp: 'nothing' will not do"),
        ("node = 1\n" + KIND, "1: node: 1 is not a table; write a table: [node]"),
        ("[kinds]\na = 1", "2: kinds.a: 1 is not a table"),
        ("kinds = 1", "1: kinds: 1 is not a table"),
        ('[kinds.a]\nhandler = "local:a:b"', "1: kinds.a: this kind has no number; write number = 7"),
        (
            "[kinds.a]\nnumber = 1",
            '1: kinds.a: this kind has no handler; write handler = "local:package.module:function" or',
        ),
        (
            '[kinds.a]\nnumber = 4294967296\nhandler = "local:a:b"',
            "2: kinds.a.number: 4294967296 is too large; write 4294967295",
        ),
        ('[kinds.a]\nnumber = -1\nhandler = "local:a:b"', "2: kinds.a.number: -1 is too small; write 0 or more"),
        ('[kinds."7"]\nnumber = 1\nhandler = "local:a:b"', "1: kinds.7: '7' is no name for a kind"),
        (
            '[kinds.a]\nnumber = 1\nhandler = "truba://host"',
            "3: kinds.a.handler: 'truba://host' is not the route of a handler",
        ),
        ('[kinds.a]\nnumber = 1\nhandler = "truba:host:1"', "3: kinds.a.handler: 'truba:host:1' is not the route"),
        ('[kinds.a]\nnumber = 1\nhandler = "local:f"', "3: kinds.a.handler: 'local:f' is not the route of a handler"),
        ('[kinds.a]\nnumber = 1\nhandler = "unix:sock"', "3: kinds.a.handler: 'unix:sock' is not the route"),
        (f'[kinds.a]\nnumber = 1\nhandler = "unix:/{107 * "x"}"', "3: kinds.a.handler: 'unix:/xxx"),
        (
            '[kinds.a]\nnumber = 1\nhandler = "unix:/s"\ntls = { ca = "x" }',
            "4: kinds.a.tls: TLS is for routes that say so",
        ),
        ('[kinds.a]\nnumber = 1\nhandler = "amqp://q"', "3: kinds.a.handler: 'amqp' is not a scheme of routes; write"),
        (
            '[kinds.a]\nnumber = 1\nhandler = "local:a:b"\nhandler_secret_file = "x"',
            "4: kinds.a.handler_secret_file: a local",
        ),
        (KIND + KIND.replace("transfer", "b"), "5: kinds.b.number: 7 is taken: kind transfer on line 2 has it"),
        (KIND + KIND, "4:16: not TOML: this table was declared before"),
        (
            KIND + "jitter = 5s",
            "4:11: not TOML: expected newline or end of document after a statement; sizes, times",
        ),
        (KIND + "jitter = ", "4:10: not TOML: invalid value"),
        (KIND + 'jitter = "5', "4:12: not TOML: unterminated string"),
        (KIND + "jitter = " + "1" * 5000, " not TOML: a number that is too long"),
        (KIND + '[node]\nbackups = "data"', "5: node.backups: "),
        (KIND + '[node]\nbackups = "./data/backups"', "5: node.backups: "),
        (KIND + '[node]\ndata = "backups/data"\nbackups = "backups"', "6: node.backups: "),
    ],
)
def test_a_refusal_names_its_line_and_what_to_write(write: Path, text: str, expected: str) -> None:
    assert any(problem.startswith(expected) for problem in problems(write, text)), problems(write, text)


SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "hunter2\n\n",
        "user:hunter2@host",
        "a = hunter2",
        "[hunter2",
        "[[hunter2]",
        "[hunter2]\n[hunter2]",
        "[[a.hunter2]]\n[a.hunter2]",
        "a.hunter2 = 1\n[a.hunter2]",
        "a = { hunter2 = 1, hunter2 = 2 }",
        "hunter2 = 1\nhunter2 = 2",
        "hunter2 = {}\nhunter2.a = 1",
        "[hunter2.a]\n[hunter2]\na.b = 1",
        "a = 'hunter2",
        'a = "hunter2\\x"',
        "a = 'hunter2\x01'",
        "a = ['hunter2'",
        "a = 2026-13-45 # hunter2",
        "[' (at hunter2']\n[' (at hunter2']",
    ],
)
def test_what_is_no_toml_is_not_shown(write: Path, text: str) -> None:
    """It may be the file of a secret that was named by mistake."""
    (problem,) = problems(write, text)
    assert re.match(r"\d+:\d+: not TOML: \w", problem), problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "text",
    [
        "PARTS = 1",
        "[PARTS]",
        "[[ PARTS ]]",
        "a = { PARTS = 1 }",
        "a = [\n  1, { b = '#', PARTS = 1 },\n]",
        "a = '''x''' # b\nb = { c = 1, PARTS = 1 }",
    ],
)
@pytest.mark.parametrize("part", ["a", "'a.b'", '"a\\"b" '])
def test_a_key_of_many_parts_is_refused_unread(
    write: Path, monkeypatch: pytest.MonkeyPatch, text: str, part: str
) -> None:
    def read(text: str) -> None:
        raise AssertionError("this would have taken gigabytes")

    monkeypatch.setattr(tomllib, "loads", read)
    (problem,) = problems(write, text.replace("PARTS", ".".join([part] * 20_000)))
    assert "more than 16 deep" in problem


def test_dots_in_values_and_comments_are_no_key(write: Path) -> None:
    dots = ".".join("a" * 40)
    text = f'# {dots}\n[node]\nname = \'{dots}\'\npassword_env = """\nA.{dots}""" # {dots}\n'
    (problem,) = problems(write, KIND + text)
    assert problem.startswith("7: node.password_env: this is no name of a variable")


@pytest.mark.parametrize("text", ["a = " + "[" * 17, "a = " + "{ b = " * 100, "a = " + "[" * 100_000])
def test_tables_and_lists_that_are_too_deep(write: Path, text: str) -> None:
    ends = {"[": "]", "{": "}"}
    closed = text + "1" + "".join(ends[mark] for mark in reversed(text) if mark in ends)
    (problem,) = problems(write, closed)
    assert "more than 16 deep" in problem


@pytest.mark.timeout(30)
def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(ConfigProblems, match="larger than 1048576 bytes"):
        load(Path("/dev/zero"))


def test_kinds_with_one_handler_have_one_secret(write: Path) -> None:
    (write.parent / "secret").write_text("hush")
    other = KIND.replace("transfer", "b").replace("7\n", "8\n") + 'handler_secret_file = "secret"\n'
    (problem,) = problems(write, KIND + other)
    assert problem.startswith("4: kinds.b: kind transfer has the same handler with another handler_secret_file")


def test_all_problems_are_told_at_once_in_order_of_line(write: Path) -> None:
    text = '[kinds.a]\nnumber = 1\n[kinds.b]\nnumber = 1\nhandler = "x://y"\njitter = "z"\n[node]\nlog_level = 3\n'
    assert [problem.partition(": ")[0] for problem in problems(write, text)] == ["1", "4", "5", "6", "8"]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "this is a directory"),
        (lambda path: path.write_bytes(b"[node]\nname = '\xff'"), ":2: these bytes are not UTF-8"),
        (lambda path: path.write_bytes(b"#" * (5 << 20)), "larger than"),
    ],
)
def test_a_file_that_cannot_be_read(write: Path, make: object, expected: str) -> None:
    make(write)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=expected):
        load(write)


def test_a_secret_is_the_file_without_its_last_newline(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b" two\nlines \r\n")
    assert read_secret(secret) == b" two\nlines "
    secret.write_bytes(b"\n")
    with pytest.raises(ConfigError, match="is empty"):
        read_secret(secret)


def test_windows_line_ends_do_not_shift_lines(write: Path) -> None:
    write.write_bytes((KIND + "oops = 1").replace("\n", "\r\n").encode())
    with pytest.raises(ConfigProblems, match=r":4: kinds\.transfer\.oops"):
        load(write)


SECRETS = ["whsec_" + letter * 43 + "=" for letter in "AB"]
WEBHOOK = '[kinds.transfer]\nnumber = 7\nhandler = "https://host/path"\n'


def test_a_webhook_with_a_file_of_two_secrets(write: Path) -> None:
    (write.parent / "whsec").write_text("\n".join(SECRETS) + "\n")
    (write.parent / "ca.pem").write_text("certificates")
    text = 'webhook = { secret_file = "whsec", format = "msgpack", ca_file = "ca.pem" }\n'
    config = loaded(write, WEBHOOK + text)
    (kind,) = config.kinds
    assert kind.handler == "https://host/path"
    webhook = read_webhook("https://host/path", config.webhooks["https://host/path"])
    assert webhook == Webhook("https://host/path", SECRETS, "msgpack", write.parent / "ca.pem")


def test_a_webhook_with_a_secret_of_the_environment(write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_WHSEC", SECRETS[0])
    text = '[kinds.transfer.webhook]\nsecret_env = "TRANSFER_WHSEC"\ninsecure = true\n'
    config = loaded(write, WEBHOOK.replace("https", "http") + text)
    ((route, table),) = config.webhooks.items()
    assert read_webhook(route, table) == Webhook("http://host/path", SECRETS[0], insecure=True)


def test_parked_sessions_may_be_posted_though_the_handler_is_not(write: Path) -> None:
    (write.parent / "whsec").write_text(SECRETS[0])
    text = 'on_parked = "https://pager/x"\nwebhook = { secret_file = "whsec" }\n'
    config = loaded(write, KIND + text)
    assert config.webhooks == {}
    assert read_webhook(*config.parked_webhooks["transfer"]) == Webhook("https://pager/x", SECRETS[0])
    assert config.kinds[0].on_parked == "https://pager/x"


def test_two_kinds_share_a_webhook_only_as_a_whole(write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", SECRETS[0])
    text = WEBHOOK + 'webhook = { secret_env = "A" }\n'
    other = text.replace("transfer", "b").replace("7\n", "8\n")
    assert len(loaded(write, text + other).webhooks) == 1
    (problem,) = problems(write, text + other.replace("}", ', format = "msgpack" }'))
    assert problem.startswith("5: kinds.b: kind transfer has the same handler with another webhook table")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WEBHOOK, "1: kinds.transfer: there is no secret to sign with; write webhook = {"),
        (WEBHOOK + "webhook = {}", "4: kinds.transfer.webhook: there is no secret to sign with"),
        (WEBHOOK + 'webhook = { secret_file = "nowhere" }', "4: kinds.transfer.webhook: "),
        (WEBHOOK + 'webhook = { secret_file = "bad" }', "4: kinds.transfer.webhook: webhook 'https://host/path': a"),
        (
            WEBHOOK + 'webhook = { secret_env = "TRUBA_NOT_SET" }',
            "4: kinds.transfer.webhook: the environment variable TRUBA_NOT_SET",
        ),
        (WEBHOOK + 'webhook = { secret_env = "a b" }', "4: kinds.transfer.webhook.secret_env: this is no name"),
        (
            WEBHOOK + 'webhook = { secret_file = "good", secret_env = "A" }',
            "4: kinds.transfer.webhook.secret_env: there",
        ),
        (WEBHOOK + 'webhook = { secret_file = "good", ca_file = "x" }', "4: kinds.transfer.webhook.ca_file: "),
        (
            WEBHOOK + 'webhook = { secret_file = "good", formt = "json" }',
            "4: kinds.transfer.webhook.formt: unknown key",
        ),
        (
            WEBHOOK + 'webhook = { secret_file = "good", format = "xml" }',
            "4: kinds.transfer.webhook.format: 'xml' will",
        ),
        (
            WEBHOOK.replace("https", "http") + 'webhook = { secret_file = "good" }',
            "4: kinds.transfer.webhook: webhook 'http://host/path': records would leave this machine in plain text",
        ),
        (
            WEBHOOK + 'handler_secret_file = "good"\nwebhook = { secret_file = "good" }',
            "4: kinds.transfer.handler_secret_file: a webhook is shown no secret",
        ),
        (
            KIND + 'webhook = { secret_file = "good" }',
            "4: kinds.transfer.webhook: truba://127.0.0.1:7434 is not posted to",
        ),
        (KIND + 'on_parked = "https://host/path"', "1: kinds.transfer: there is no secret to sign with"),
        (
            KIND + 'on_parked = "http://host/path"\nwebhook = { secret_file = "good" }',
            "5: kinds.transfer.webhook: webhook 'http://host/path': records would leave",
        ),
        (KIND + 'on_parked = "https://ann:pw@host/"', "4: kinds.transfer.on_parked: 'https://...@host/' is not the"),
        (WEBHOOK.replace("host/path", "ann:pw@host"), "3: kinds.transfer.handler: 'https://...@host' is not the"),
        (WEBHOOK.replace("host/path", ""), "3: kinds.transfer.handler: 'https://' is not the route of a webhook"),
    ],
)
def test_refusals_of_webhooks(write: Path, text: str, expected: str) -> None:
    (write.parent / "good").write_text(SECRETS[0])
    (write.parent / "bad").write_text("hush hush")
    found = problems(write, text)
    assert any(problem.startswith(expected) for problem in found), found
    assert not any("hush" in problem or SECRETS[0] in problem for problem in found)


def test_a_transport_of_ones_own_may_take_the_scheme(write: Path) -> None:
    config = loaded(write, WEBHOOK + '[transports]\nhttps = "mine:transport"\n')
    assert config.webhooks == {}
