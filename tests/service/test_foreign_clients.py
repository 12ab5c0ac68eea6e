"""Clients that others wrote: redis-cli, redis-benchmark, redis-py and two of Node's, over TCP and the Unix socket."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.service.process import ROOT, Server, Servers, kind, servers

NODE_CLIENT = ROOT / "tests" / "node-client"
PASSWORD = "correct horse battery"
WAYS = ["tcp", "unix"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A pipe with a password."""
    for pipes in servers(tmp_path_factory.mktemp("guarded")):
        (pipes.directory / "password").write_text(PASSWORD + "\n")
        yield pipes.start(node=f'unix = "{pipes.directory}/truba.sock"\npassword_file = "password"')


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not there: apt install redis-tools")
    return path


def node() -> str:
    path = shutil.which("node")
    if path is None:
        pytest.skip("node is not there: install Node.js 20 or later")
    if not (NODE_CLIENT / "node_modules").is_dir():
        pytest.skip("the Node clients are not there: run npm ci in tests/node-client")
    return path


def place(server: Server, way: str) -> list[str]:
    """Where redis-cli and redis-benchmark find the pipe."""
    return ["-s", server.unix] if way == "unix" else ["-h", server.host, "-p", str(server.port)]


def run(*command: str, said: str = "", **options: Any) -> str:
    ended = subprocess.run(command, input=said, capture_output=True, text=True, timeout=60, check=False, **options)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


# -- redis-cli -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("proto", ["-2", "-3"])
def test_redis_cli_runs_a_whole_life(shared: Server, way: str, proto: str) -> None:
    cli = [tool("redis-cli"), proto, *place(shared, way)]
    created = run(*cli, said='new transfer "debit 5"\nnew 7 a\n').split()
    assert len(created) == 2
    # The connection that opened them has ended, with a kind that waits for nothing: both are unfinished.
    first, second = created
    assert '"stored"' in run(*cli, "--json", "SHOW", first)
    assert run(*cli, "REMOVE", first) == "OK\n"
    assert run(*cli, "REMOVE", second) == "OK\n"
    lines = f"append {first} x\ndelete 1-1\nnew nobody\nflushall\nappend {first}\nset a b\n"
    codes = [line.split()[0] for line in run(*cli, said=lines).splitlines() if line]
    assert codes == ["NOSESSION", "NOSESSION", "UNKNOWNKIND", "ERR", "ERR", "ERR"]


def test_redis_cli_in_one_connection(shared: Server) -> None:
    cli = [tool("redis-cli"), *place(shared, "tcp")]
    start = int(run(*cli, "INFO").partition("seq:")[2].split()[0])
    id_text = f"{shared.ready['term']}-{start + 1}"
    lines = f"new 7 a\nappend {id_text} b c\nreplace {id_text} d\ntouch {id_text}\nshow {id_text}\nstore {id_text} 60\n"
    said = run(*cli, said=lines + f"append {id_text} e\nremove {id_text}\n").split("\n")
    assert said[:4] == [id_text, "OK", "OK", "OK"]
    assert said[said.index("records") + 1] == "d"
    stored, late, removed = [line for line in said if line][-3:]
    assert (stored, late.split()[0], removed) == ("OK", "CLOSED", "OK")


def test_redis_cli_with_a_password(guarded: Server) -> None:
    cli = [tool("redis-cli"), *place(guarded, "tcp")]
    assert run(*cli, "PING").startswith("NOAUTH")
    assert run(*cli, "--no-auth-warning", "-a", PASSWORD, "PING") == "PONG\n"
    assert run(*cli, "--no-auth-warning", "-3", "--user", "default", "--pass", PASSWORD, "PING") == "PONG\n"
    assert "NOAUTH" in run(*cli, "--no-auth-warning", "-a", "wrong", "PING")


def test_redis_cli_pipe_mode(pipes: Servers) -> None:
    """`redis-cli --pipe` loads commands in bulk, and counts answers and errors."""
    server = pipes.start()
    requests = "NEW 7 bulk\r\n" * 2_000 + "NEW 9 nothing\r\n" * 3
    ended = subprocess.run(
        [tool("redis-cli"), *place(server, "tcp"), "--pipe"],
        input=requests, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "errors: 3, replies: 2003" in ended.stdout + ended.stderr


# -- redis-benchmark -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("words", [["PING"], ["NEW", "7", "__data__" * 32]], ids=["ping", "new"])
def test_redis_benchmark_with_pipelining(pipes: Servers, way: str, words: list[str]) -> None:
    server = pipes.start(kind(recovery_delay="1h"), node=f'unix = "{pipes.directory}/truba.sock"')
    count = 20_000
    command = [tool("redis-benchmark"), *place(server, way), "-n", str(count), "-c", "20", "-P", "16", "--csv"]
    rows = list(csv.reader(io.StringIO(run(*command, *words))))
    assert rows[0][:2] == ["test", "rps"]
    assert float(rows[1][1]) > 0
    with redis.Redis(*server.address) as client:
        info = client.info("everything")
    if words[0] == "NEW":
        # Each of them is there: held at first, then unfinished when the benchmark hung up.
        counts = dict(part.split("=") for part in _text(info["kind_7"]))
        assert int(counts["active"]) + int(counts["stored"]) == count


def _text(value: Any) -> list[str]:
    """redis-py makes a dictionary of a line of `a=1,b=2`."""
    return [f"{key}={item}" for key, item in value.items()] if isinstance(value, dict) else str(value).split(",")


# -- redis-py -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[(way, proto) for way in WAYS for proto in (2, 3)], ids=lambda p: f"{p[0]}-resp{p[1]}")
def client(request: pytest.FixtureRequest, shared: Server) -> Iterator[redis.Redis]:
    way, proto = request.param
    where = {"unix_socket_path": shared.unix} if way == "unix" else {"host": shared.host, "port": shared.port}
    with redis.Redis(**where, protocol=proto, single_connection_client=True) as made:
        yield made


def test_redis_py_runs_a_whole_life(client: redis.Redis) -> None:
    say = client.execute_command
    assert client.ping()
    made = say("NEW", 7, b"a\r\n\x00\xff", b"")
    assert say("APPEND", made, b"c", b"d") == b"OK"
    assert shown(say("SHOW", made))[b"records"] == [b"a\r\n\x00\xff", b"", b"c", b"d"]
    assert say("REPLACE", made, b"e") == b"OK"
    assert say("TOUCH", made) == b"OK"
    session = shown(say("SHOW", made))
    assert (session[b"records"], session[b"phase"], session[b"name"]) == ([b"e"], b"active", b"transfer")
    assert say("STORE", made, "3600.5") == b"OK"
    assert shown(say("SHOW", made))[b"phase"] == b"stored"
    _, listed = say("LS", "KIND", "transfer", "PHASE", "stored", "LIMIT", 1000)
    assert made in [shown(each)[b"id"] for each in listed]
    assert say("REMOVE", made) == b"OK"
    second = say("NEW", 7, b"x")
    assert say("DELETE", second) == b"OK"


def test_redis_py_pipelines(client: redis.Redis) -> None:
    with client.pipeline(transaction=False) as batch:
        for at in range(1_000):
            batch.execute_command("NEW", 7, b"record %d" % at)
        made = batch.execute()
        assert len(set(made)) == 1_000
        for each in made:
            batch.execute_command("DELETE", each)
        assert batch.execute() == [b"OK"] * 1_000
        batch.execute_command("ECHO", "first")
        batch.execute_command("DELETE", made[-1])
        batch.execute_command("ECHO", "last")
        first, refusal, last = batch.execute(raise_on_error=False)
    assert (first, last) == (b"first", b"last")
    assert isinstance(refusal, redis.ResponseError)
    assert str(refusal).startswith("CLOSED ")


def test_redis_py_is_told_errors(client: redis.Redis) -> None:
    for words, code in [
        (("NEW", "nobody"), "UNKNOWNKIND"),
        (("APPEND", "1-99999999", "x"), "NOSESSION"),
        (("DELETE",), "DELETE takes an id"),  # the library takes the word ERR away
        (("GET", "a"), "unknown command"),
    ]:
        with pytest.raises(redis.ResponseError, match=f"^{code}"):
            client.execute_command(*words)
    assert client.ping()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("proto", [2, 3])
@pytest.mark.parametrize("user", [None, "default"])
def test_redis_py_authenticates(guarded: Server, way: str, proto: int, user: str | None) -> None:
    where: dict[str, Any] = (
        {"unix_socket_path": guarded.unix} if way == "unix" else {"host": guarded.host, "port": guarded.port}
    )
    where["retry"] = Retry(NoBackoff(), 0)  # the library tries a wrong password again and again
    with redis.Redis(**where, protocol=proto, username=user, password=PASSWORD) as client:
        assert client.execute_command("NEW", 7)
    for wrong in ("wrong", None):
        with (
            redis.Redis(**where, protocol=proto, username=user if wrong else None, password=wrong) as client,
            pytest.raises(redis.RedisError, match=r"NOAUTH|wrong user or password|authenticate"),
        ):
            client.execute_command("NEW", 7)


def shown(session: Any) -> dict[bytes, Any]:
    return session if isinstance(session, dict) else dict(zip(session[::2], session[1::2], strict=True))


# -- Node -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["ioredis", "redis"])
@pytest.mark.parametrize("way", WAYS)
def test_node_clients_run_a_whole_life(shared: Server, library: str, way: str) -> None:
    address = shared.unix if way == "unix" else str(shared.port)
    said = json.loads(run(node(), "life.mjs", library, address, cwd=NODE_CLIENT))
    assert said.pop("id").startswith(f"{shared.ready['term']}-")
    assert said == {
        "appended": "OK",
        "replaced": "OK",
        "renewed": "OK",
        "ping": "in order",
        "records": ["all done", "bytes é"],
        "deleted": "OK",
        "distinct": 500,
        "gone": 500,
        "errors": {
            "closed": "CLOSED",
            "unknown_kind": "UNKNOWNKIND",
            "no_session": "NOSESSION",
            "bad_id": "ERR",
            "unknown_command": "ERR",
        },
    }


@pytest.mark.parametrize("library", ["ioredis", "redis"])
def test_node_clients_authenticate(guarded: Server, library: str) -> None:
    command = [node(), "life.mjs", library, str(guarded.port)]
    assert json.loads(run(*command, PASSWORD, cwd=NODE_CLIENT))["deleted"] == "OK"
    ended = subprocess.run(
        [*command, "wrong"], cwd=NODE_CLIENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert "NOAUTH" in ended.stderr or "wrong user or password" in ended.stderr
