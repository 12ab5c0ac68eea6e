"""Certificates, users, rights, secrets, plain text: what is refused, where, and that nothing secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tls.certificates import Authority
from truba.config import Config, ConfigProblems, load, plain_places
from truba.passwords import make
from truba.service import _users as users_of

SALT = b"salt"
HASH = str(make(b"hush", SALT, slow=False))
KINDS = '[kinds.a]\nnumber = 1\nhandler = "local:a:b"\n[kinds.b]\nnumber = 2\nhandler = "local:a:b"\n'
USER = f'[users.ann]\npassword_hash = "{HASH}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "truba.toml"


def loaded(file: Path, text: str, *, insecure: bool = False) -> Config:
    file.write_text(text)
    return load(file, insecure=insecure)


def problems(file: Path, text: str) -> list[str]:
    with pytest.raises(ConfigProblems) as caught:
        loaded(file, text)
    return [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]


def route(handler: str, more: str = "") -> str:
    return f'[kinds.a]\nnumber = 1\nhandler = "{handler}"\n{more}'


def test_rights_of_names_become_rights_of_numbers(file: Path) -> None:
    config = loaded(
        file,
        KINDS
        + USER
        + 'rights = [{ kinds = ["b"], verbs = ["write", "ls"] }, { kinds = ["*"], verbs = ["read"] },'
        + ' { kinds = ["a", "b"], verbs = ["RESUME"] }, { kinds = ["a"], verbs = ["show"] }]\n'
        + f'[users.eve]\npassword_hash = "{HASH}"\n',
    )
    users = users_of(config)
    ann, eve = users.authenticate("ann", "hush", ""), users.authenticate("eve", "hush", "")
    may = {(verb, kind) for verb in ("NEW", "LS", "SHOW", "RESUME", "KINDS") for kind in (1, 2, 3, None)}
    assert {one for one in may if ann.allows(*one)} == {  # type: ignore[union-attr]
        ("NEW", 2), ("RESUME", 1), ("RESUME", 2),
        *((verb, kind) for verb in ("LS", "SHOW") for kind in (1, 2, 3, None)),
    }  # fmt: skip
    assert not any(eve.allows(*one) for one in may)  # type: ignore[union-attr]


def test_secrets_come_from_files_or_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPE_PASSWORD", "open sesame")
    monkeypatch.setenv("ANN", f" {HASH}\n")
    (file.parent / "hash").write_text(f"{HASH}\n")
    config = loaded(file, '[node]\npassword_env = "PIPE_PASSWORD"\n' + KINDS)
    password = config.node.secret("password")
    assert password is not None
    assert password.text() == "open sesame"
    assert "PIPE_PASSWORD" in str(password)
    for line in ('password_hash_env = "ANN"', 'password_hash_file = "hash"'):
        config = loaded(file, f"{KINDS}[users.ann]\n{line}\n")
        assert str(config.users["ann"].read_hash()) == HASH


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (KINDS + "[users.ann]\n", "7: users.ann: nothing proves who that is; write password_hash, or certificate"),
        (KINDS + USER + 'certificate = "x"\n', "9: users.ann.certificate: nobody asks clients for certificates; write"),
        (KINDS + USER + '[node]\npassword_file = "p"\n', "10: node.password_file: there are [users] too"),
        (KINDS + USER + '[node]\nauthenticator = "a:b"\n', "10: node.authenticator: there are [users] too"),
        (KINDS + '[users.ann]\npassword_hash = "hush"\n', "8: users.ann.password_hash: this is no hash of a password"),
        (KINDS + "[users.ann]\npassword_hash = 5\n", "8: users.ann.password_hash: this is no hash of a password"),
        (KINDS + USER + 'password_hash_file = "x"\n', "8: users.ann.password_hash: there is another place for it too"),
        (KINDS + '[users.ann]\npassword_hash_env = "NOT_SET"\n', "8: users.ann.password_hash_env: the environment var"),
        (KINDS + '[users.ann]\npassword_hash_file = "no"\n', "8: users.ann.password_hash_file: "),
        (KINDS + '[users.ann]\npassword_hash_file = "truba.toml"\n', "8: users.ann.password_hash_file: "),
        (KINDS + '[users.ann]\npassword_hash_env = "a b"\n', "8: users.ann.password_hash_env: this is no name"),
        (KINDS + '[users."a b"]\npassword_hash_env = "HOME"\n', "7: users.a b: 'a b' is no name for a user"),
        (KINDS + USER + 'rights = [{ kinds = ["c"], verbs = ["NEW"] }]', "9: users.ann.rights.0.kinds: there is no ki"),
        (KINDS + USER + 'rights = [{ kinds = ["a"], verbs = ["wrote"] }]', "9: users.ann.rights.0.verbs.0: 'wrote' is"),
        (KINDS + USER + 'rights = [{ kinds = ["a"] }]', "9: users.ann.rights.0: verbs is missing; write { kinds ="),
        (KINDS + USER + 'rights = [{ kinds = [], verbs = ["NEW"] }]', "9: users.ann.rights.0.kinds: there are no kind"),
        (KINDS + USER + 'rights = [{ kinds = "a", verbs = ["NEW"] }]', "9: users.ann.rights.0.kinds: 'a' is not a lis"),
        (KINDS + USER + 'right = []', '9: users.ann.right: unknown key; write "rights"'),
        ('[node]\npassword_env = "NOT_SET"\n' + KINDS, "2: node.password_env: the environment variable NOT_SET is not"),
        ('[node]\npassword_env = "HOME"\npassword_file = "x"\n' + KINDS, "2: node.password_env: there is a password_f"),
        ('[node.tls]\nkey = "k"\n' + KINDS, "1: node.tls: certificate is missing; write certificate = ..."),
        ('[node.tls]\ncertificate = "no"\n' + KINDS, "1: node.tls: "),
        ('[node.tls]\ncert = "no"\n' + KINDS, '2: node.tls.cert: unknown key; the keys here are: '),
        (route("truba://127.0.0.1:1", 'tls = { ca = "x" }'), "4: kinds.a.tls: TLS is for routes that say so; write"),
        (route("trubas://127.0.0.1:1", 'tls = { ca = "no" }'), "4: kinds.a.tls: "),
        (route("trubas://127.0.0.1:1", 'tls = { key = "no" }'), "4: kinds.a.tls.key: there is no certificate beside"),
        (route("local:a:b", 'handler_secret_env = "HOME"'), "4: kinds.a.handler_secret_env: a local handler is shown "),
    ],
)  # fmt: skip
def test_refusals(file: Path, text: str, expected: str) -> None:
    found = problems(file, text)
    assert any(problem.startswith(expected) for problem in found), found


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[node]\nlisten = "0.0.0.0:7433"\n' + KINDS, "node.listen"),
        ('[node]\nlisten = "[::]:7433"\n' + KINDS, "node.listen"),
        ('[node]\nlisten = "pipe.example:7433"\n' + KINDS, "node.listen"),
        (route("truba://10.0.0.9:7434"), "kinds.a.handler"),
        (route("truba://handlers:7434"), "kinds.a.handler"),
    ],
)
def test_plain_text_beyond_this_machine_must_be_meant(file: Path, text: str, key: str) -> None:
    (problem,) = problems(file, text)
    assert f"{key}: " in problem
    assert "plain text beyond this machine" in problem
    assert "insecure = true in [node]" in problem
    said = "insecure = true\n"
    meant = text.replace("[node]\n", f"[node]\n{said}") if "[node]" in text else f"{text}[node]\n{said}"
    for config in (loaded(file, text, insecure=True), loaded(file, meant)):
        assert [".".join(map(str, place)) for place, _ in plain_places(config)] == [key]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "[::1]", "localhost", "a.localhost"])
def test_what_stays_on_this_machine_may_be_plain(file: Path, host: str) -> None:
    text = f'[node]\nlisten = "{host}:7433"\n' + route(f"truba://{host}:7434")
    assert not list(plain_places(loaded(file, text)))


def test_a_cluster_says_all_that_is_plain(file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    tls = Authority(tmp_path).issue("10.0.0.1")
    pair = f'certificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
    nodes = '[cluster.nodes]\na = { clients = "10.0.0.1:1", peers = "10.0.0.1:2" }\n'

    def text(node: str, server: str, more: str) -> str:
        cluster = f'[cluster]\nservers = ["{server}"]\nsecret_file = "secret"\n{more}'
        return f'[node]\nname = "a"\nlisten = "10.0.0.1:1"\n{node}{cluster}{nodes}{KINDS}'

    found = problems(file, text("", "nats://10.0.0.1", ""))
    assert [problem.split(": ")[1] for problem in found] == ["node.listen", "cluster", "cluster.servers.0"]
    secured = f"[node.tls]\n{pair}"
    found = problems(file, text(secured, "tls://h", 'peers_listen = "127.0.0.1:7"\n'))
    assert any("peers at 10.0.0.1:2: plain text" in problem for problem in found)
    assert any("none of them knows whom to believe; write [cluster.tls]" in problem for problem in found)
    whole = text(secured, "tls://h", f'[cluster.tls]\nca = "{tls.ca}"\n{pair}')
    assert not list(plain_places(loaded(file, whole)))


def test_what_is_shared_on_one_connection_is_the_same(file: Path, tmp_path: Path) -> None:
    ca = Authority(tmp_path).pem
    one = route("trubas://127.0.0.1:1", f'tls = {{ ca = "{ca}" }}\n')
    (problem,) = problems(file, one + one.replace("kinds.a", "kinds.b").replace("= 1\n", "= 2\n").replace("tls =", "#"))
    assert "kind a has the same handler with another tls" in problem


SECRET = "hunter2-very-secret"


@pytest.mark.parametrize(
    "text",
    [
        KINDS + f'[users.ann]\npassword_hash = "{SECRET}"\n',
        KINDS + f"[users.ann]\npassword_hash = {SECRET}\n",
        KINDS + f'[users.ann]\npassword_hash = ["{SECRET}"]\n',
        KINDS + f'[users.ann]\npassword = "{SECRET}"\n',
        f'[node]\npassword = "{SECRET}"\n' + KINDS,
        f"[node]\npassword = {SECRET}\n" + KINDS,
        f"[node]\npassword_file = '{SECRET}\n" + KINDS,
        f'[node]\npassword_env = "{SECRET}"\n' + KINDS,
        route(f"truba://ann:{SECRET}@127.0.0.1:1"),
        route(f"truba://ann:{SECRET}@:1"),
        route(f"https://ann:{SECRET}@host/path"),
        route(f"nowhere://ann:{SECRET}@host/path"),
        f'[cluster]\nservers = ["nats://ann:{SECRET}@host"]\nsecret_file = "s"\n' + KINDS,
        f'[cluster]\nservers = ["http://ann:{SECRET}@host"]\nsecret_file = "s"\n' + KINDS,
        f'[cluster]\nservers = ["nats://host"]\nsecret = "{SECRET}"\n' + KINDS,
        f'[cluster]\nservers = "nats://ann:{SECRET}@host"\nsecret_file = "s"\n' + KINDS,
    ],
)
def test_what_may_be_a_secret_is_shown_in_no_error(file: Path, text: str) -> None:
    found = problems(file, text)
    assert found
    assert SECRET not in "\n".join(found)


def test_a_configuration_does_not_show_hashes(file: Path) -> None:
    config = loaded(file, KINDS + USER)
    assert HASH not in repr(config)
    assert HASH not in str(config)
