"""The table [cluster]: what it becomes, and every refusal with its line and its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from truba.config import Address, ConfigProblems, load

REST = (
    '[kinds.transfer]\nnumber = 7\nhandler = "local:a:b"\n'
    '[node]\nname = "a"\nlisten = "0.0.0.0:7433"\ninsecure = true\n'
)
NODES = """[cluster.nodes]
a = { clients = "10.0.0.1:7433", peers = "10.0.0.1:7434" }
b = { clients = "10.0.0.2:7433", peers = "10.0.0.2:7434" }
"""
CLUSTER = '[cluster]\nservers = ["nats://10.0.0.1:4222"]\nsecret_file = "secret"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for name in ("secret", "password", "system", "ca.pem", "cert.pem", "key.pem", "creds"):
        (tmp_path / name).write_text(f"{name}\n")
    return tmp_path / "truba.toml"


def problems(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigProblems) as caught:
        load(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


def test_the_least_cluster(file: Path) -> None:
    file.write_text(CLUSTER + NODES + REST)
    cluster = load(file).cluster
    assert cluster is not None
    assert (cluster.stream, cluster.subject, cluster.replicas, cluster.keep) == ("truba", "truba.log", 3, 2**30)
    assert (cluster.trust_servers, cluster.user, cluster.files) == (
        False,
        None,
        {"secret_file": file.parent / "secret"},
    )
    assert cluster.nodes["b"].clients == Address("10.0.0.2", 7433)
    assert cluster.door("b") == Address("10.0.0.2", 7434)


def test_everything_said_is_taken(file: Path) -> None:
    more = """
        servers = ["tls://host", "nats://[::1]:4223/"]
        stream = "pipe-1"
        replicas = 1
        user = "truba"
        password_file = "password"
        tls_ca_file = "ca.pem"
        tls_cert_file = "cert.pem"
        tls_key_file = "key.pem"
        system_user = "sys"
        system_password_file = "system"
        trust_servers = true
        secret_file = "secret"
        peers_listen = "0.0.0.0:9"
        keep = "64MiB"
        """
    file.write_text("[cluster]" + more + NODES + REST)
    cluster = load(file).cluster
    assert cluster is not None
    assert cluster.servers == ["tls://host:4222", "nats://[::1]:4223"]
    assert (cluster.subject, cluster.replicas, cluster.trust_servers, cluster.keep) == ("pipe-1.log", 1, True, 64 << 20)
    assert all(path.is_absolute() for path in cluster.files.values())
    assert set(cluster.secret_places) == {"password_file", "system_password_file", "secret_file"}
    assert cluster.door("a") == cluster.door("b") == Address("0.0.0.0", 9)


def test_credentials_instead_of_a_user(file: Path) -> None:
    file.write_text(CLUSTER + 'credentials_file = "creds"\nsystem_credentials_file = "creds"\n' + NODES + REST)
    cluster = load(file).cluster
    assert cluster is not None
    assert {"credentials_file", "system_credentials_file"} <= set(cluster.files)


def test_up_to_seven_nodes(file: Path) -> None:
    lines = [f'n{n} = {{ clients = "h{n}:1", peers = "h{n}:2" }}\n' for n in range(8)]
    rest = REST.replace('"a"', '"n0"')
    for count in (1, 2, 7):
        file.write_text(CLUSTER + "[cluster.nodes]\n" + "".join(lines[:count]) + rest)
        assert load(file).cluster is not None
    (problem,) = problems(file, CLUSTER + "[cluster.nodes]\n" + "".join(lines) + rest)
    assert problem == "4: cluster.nodes: there are too many nodes; name at most 7"


def one(clients: str, peers: str = "h:2", name: str = "a") -> str:
    return f'{CLUSTER}[cluster.nodes]\n{name} = {{ clients = "{clients}", peers = "{peers}" }}\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[cluster]\n" + NODES, "1: cluster: there are no servers; write servers = ["),
        ("[cluster]\n" + NODES, '1: cluster: secret_file is missing; write secret_file = "cluster.secret", a file'),
        (CLUSTER, "1: cluster: there are no nodes; write [cluster.nodes] with a = {"),
        (CLUSTER + "[cluster.nodes]\n", "4: cluster.nodes: there are no nodes; name at least one"),
        (CLUSTER + "strem = 1\n" + NODES, '4: cluster.strem: unknown key; write "stream"'),
        ("cluster = 1\n", "1: cluster: 1 is not a table; write a table: [cluster]"),
        (CLUSTER + "[cluster.nodes]\na = 1\n", "5: cluster.nodes.a: 1 is not a table"),
        (CLUSTER + '[cluster.nodes]\na = { clients = "h:1" }\n', "5: cluster.nodes.a: peers is missing"),
        (CLUSTER + '[cluster.nodes]\na = { pers = "h:1" }\n', '5: cluster.nodes.a.pers: unknown key; write "peers"'),
        (one("0.0.0.0:7433"), "5: cluster.nodes.a.clients: '0.0.0.0:7433' is where to listen, not where others"),
        (one("h:1", "[::]:2"), "5: cluster.nodes.a.peers: '[::]:2' is where to listen, not where others"),
        (one("*:1"), "5: cluster.nodes.a.clients: '*:1' is where to listen"),
        (one("h:0"), "5: cluster.nodes.a.clients: 'h:0' has no port that others could connect to"),
        (one("h"), "5: cluster.nodes.a.clients: 'h' is not an address"),
        (one("a..b:1"), "5: cluster.nodes.a.clients: 'a..b:1' is not an address"),
        (one("h:1", "h:1"), "4: cluster.nodes: h:1 is both a.clients and a.peers; give each an address of its own"),
        (
            CLUSTER + NODES.replace("10.0.0.2:7434", "10.0.0.1:7434"),
            "4: cluster.nodes: 10.0.0.1:7434 is both a.peers and b.peers; give each",
        ),
        (one("h:1", name='"a b"'), "4: cluster.nodes: 'a b' is no name for a node; use letters"),
        (
            CLUSTER + NODES.replace("a =", "c ="),
            """11: node.name: [cluster.nodes] has no 'a'; write name = "c" or name = "b" in [node]""",
        ),
        (
            CLUSTER.replace("10.0.0.1:4222", "a..b:4222") + NODES,
            "2: cluster.servers.0: 'nats://a..b:4222' is not the addr",
        ),
        (CLUSTER.replace("nats://", "http://") + NODES, "2: cluster.servers.0: 'http://10.0.0.1:4222' is not the addr"),
        (CLUSTER.replace("nats://", "") + NODES, "2: cluster.servers.0: '10.0.0.1:4222' is not the address of a NATS"),
        (CLUSTER.replace("//", "//u:p@") + NODES, "2: cluster.servers.0: a server's address holds no user; write"),
        (CLUSTER.replace("4222", "99999") + NODES, "2: cluster.servers.0: 'nats://10.0.0.1:99999' is not"),
        (CLUSTER.replace('["nats', '["nats://10.0.0.1", "nats') + NODES, "2: cluster.servers: one server is named tw"),
        ('[cluster]\nservers = "h"\nsecret_file = "secret"\n' + NODES, "2: cluster.servers: 'h' is not a list; write"),
        ('[cluster]\nservers = []\nsecret_file = "secret"\n' + NODES, "2: cluster.servers: there are no servers; name"),
        (CLUSTER + 'stream = "a.b"\n' + NODES, "4: cluster.stream: 'a.b' will not do; write a name of letters"),
        (CLUSTER + "replicas = 6\n" + NODES, "4: cluster.replicas: 6 is too large; write 5 or less"),
        (CLUSTER + 'keep = "1B"\n' + NODES, "4: cluster.keep: '1B' is too small"),
        (CLUSTER + 'user = "u"\n' + NODES, "4: cluster.user: there is no password_file beside it; write password_file"),
        (CLUSTER + 'password_file = "password"\n' + NODES, "4: cluster.password_file: there is no user beside it"),
        (CLUSTER + 'tls_key_file = "key.pem"\n' + NODES, "4: cluster.tls_key_file: there is no tls_cert_file beside"),
        (CLUSTER + 'system_user = "s"\n' + NODES, "4: cluster.system_user: there is no system_password_file beside"),
        (
            CLUSTER + 'user = "u"\npassword_file = "password"\ncredentials_file = "creds"\n' + NODES,
            "6: cluster.credentials_file: there is a user too; keep one of the two",
        ),
        (
            CLUSTER + 'system_user = "u"\nsystem_password_env = "P"\nsystem_credentials_file = "creds"\n' + NODES,
            "6: cluster.system_credentials_file: there is a system_user too; keep one of the two",
        ),
        (CLUSTER + "trust_servers = 1\n" + NODES, "4: cluster.trust_servers: 1 is neither true nor false"),
        (CLUSTER + 'peers_listen = "h:0"\n' + NODES, "4: cluster.peers_listen: 'h:0' has no port"),
        (
            CLUSTER + 'peers_listen = "0.0.0.0:7433"\n' + NODES,
            "4: cluster.peers_listen: 0.0.0.0:7433 is what clients are served on; give the peers an address of their",
        ),
        (CLUSTER.replace('"secret"', '"nope"') + NODES, "3: cluster.secret_file: "),
        (CLUSTER.replace('"secret"', '"empty"') + NODES, "3: cluster.secret_file: "),
        (CLUSTER.replace('"secret"', '"long"') + NODES, "3: cluster.secret_file: "),
        (CLUSTER + 'user = "u"\npassword_file = "nope"\n' + NODES, "5: cluster.password_file: "),
        (CLUSTER + 'tls_ca_file = "nope"\n' + NODES, "4: cluster.tls_ca_file: "),
        (CLUSTER + 'credentials_file = "."\n' + NODES, "4: cluster.credentials_file: "),
    ],
)
def test_a_refusal_names_its_line_and_what_to_write(file: Path, text: str, expected: str) -> None:
    (file.parent / "empty").write_text("\n")
    (file.parent / "long").write_text("x" * 1025)
    found = problems(file, text + REST)
    assert any(problem.startswith(expected) for problem in found), found


def test_others_cannot_relay_to_a_node_without_tcp(file: Path) -> None:
    rest = REST.replace('listen = "0.0.0.0:7433"', 'listen = ""\nunix = "sock"')
    (problem,) = problems(file, CLUSTER + NODES + rest)
    assert problem.startswith("12: node.listen: the other nodes relay clients to this one over TCP; give it an address")


def test_a_request_must_fit_into_a_message(file: Path) -> None:
    file.write_text(CLUSTER + NODES + REST + 'request_bytes_max = "16MiB"\n')
    assert load(file).node.request_bytes_max == 16 << 20
    (problem,) = problems(file, CLUSTER + NODES + REST + 'request_bytes_max = "17MiB"\n')
    assert 'write "16MiB" or less' in problem


def test_a_node_of_a_cluster_makes_no_backups_while_it_runs(file: Path) -> None:
    found = problems(file, CLUSTER + NODES + REST.replace("[node]\n", '[node]\nbackups = "b"\n'))
    assert any("node.backups: a node of a cluster makes no backups while it runs; remove this" in one for one in found)


def test_a_record_that_no_request_of_a_cluster_could_carry(file: Path) -> None:
    def with_records_of(size: str) -> str:
        return CLUSTER + NODES + REST.replace("number = 7", f'number = 7\nrecord_max = "{size}"')

    file.write_text(with_records_of("16MiB"))
    assert load(file).kinds[0].record_bytes_max == 16 << 20
    (problem,) = problems(file, with_records_of("17MiB"))
    assert "kinds.transfer.record_max: a record of 17MiB does not fit in a request of 16MiB; lower it" in problem
