"""Starts that must not happen, and stored data that turns out damaged: exit code, what is said, and no traceback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.service.process import Servers, kind, servers
from tests.service.wire import Listener, Wire, request
from truba.store.keys import FORMAT, META
from truba.store.rocks_setup import no_wal, open_database

USAGE, PROBLEM, DATA, STOPPED_ITSELF = 2, 1, 7, 70
RECORD_BYTES = 3_000
SESSIONS = 100
FRAME = 100_000
"""An offset in the middle of the log."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a pipe that was stopped: a log of a hundred batches and a store with a hundred sessions."""
    for pipes in servers(tmp_path_factory.mktemp("sound")):
        server = pipes.start(kind(recovery_delay="1h"))
        with Wire.dial(server.address) as client:
            for _ in range(SESSIONS):
                client.ask("STORE", client.ask("NEW", "7", os.urandom(RECORD_BYTES)), 3600)
        assert server.terminate() == 0
        yield pipes.directory


@pytest.fixture
def data(sound: Path, pipes: Servers) -> Path:
    """A copy of it, for `pipes` to start."""
    pipes.configure(kind(recovery_delay="1h"))
    return Path(shutil.copytree(sound / "data", pipes.directory / "data"))


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def first_segment(data: Path) -> Path:
    return min((data / "log").glob("segment-*.log"))


def newer_log(data: Path) -> None:
    """As a later version would write the first sector: the version is the number after the magic."""
    path = first_segment(data)
    content = bytearray(path.read_bytes())
    content[8:12] = (3).to_bytes(4, "little")
    content[48:64] = sha256(content[:48]).digest()[:16]
    path.write_bytes(content)


def newer_store(data: Path) -> None:
    database = open_database(data / "store", 1 << 20)
    key, old = META, database[META]
    assert old[1] == FORMAT  # an array whose first item is the version
    database.put(key, old[:1] + bytes((FORMAT + 1,)) + old[2:], write_opt=no_wal())
    database.flush()
    database.close()


def stranger_in_store(data: Path) -> None:
    shutil.rmtree(data / "store")
    (data / "store").mkdir()
    (data / "store" / "holiday.jpg").write_text("a photograph")


SPOILT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "log-frame": (lambda data: flip(first_segment(data), FRAME), "segment-0000000001.log, offset", "truba log repair"),
    "log-header": (lambda data: flip(first_segment(data), 10), "segment-0000000001.log, offset 0", "truba log repair"),
    "log-newer": (newer_log, "format version 3, this truba reads up to 2", "use a newer one"),
    "log-gone": (lambda data: shutil.rmtree(data / "log"), "holds a store, but no log", "restore the data directory"),
    "store-manifest": (lambda data: flip(next((data / "store").glob("MANIFEST-*")), 20), "damaged", "restore"),
    "store-table-gone": (lambda data: min((data / "store").glob("*.sst")).unlink(), "damaged", "restore"),
    "store-mark": (lambda data: flip(data / "store" / "APPLIED", 5), "APPLIED is not what was written", "restore"),
    "store-newer": (newer_store, "format 2; this truba reads up to 1", "use a newer truba"),
    "store-foreign": (stranger_in_store, "holiday.jpg, which truba did not write", "give an empty or a new directory"),
    "store-a-file": (
        lambda data: (shutil.rmtree(data / "store"), (data / "store").write_text("")), "store", "directory",
    ),
}  # fmt: skip
"""What was done to the data -> what is said, and what to do."""


@pytest.mark.parametrize("how", SPOILT)
def test_g7_damaged_data_is_refused_and_left_as_it_was(pipes: Servers, data: Path, how: str) -> None:
    spoil, said, do = SPOILT[how]
    spoil(data)
    before = (data / "log").exists() and first_segment(data).read_bytes()
    code, text = pipes.refused(pipes.directory / "truba.toml")
    assert code == DATA
    assert said in text
    assert do in text
    if before:
        assert first_segment(data).read_bytes() == before


def test_a_log_that_was_repaired_starts_again(pipes: Servers, data: Path) -> None:
    """What the refusal says works as it is printed; the store's state reaches further, and that is said too."""
    flip(first_segment(data), FRAME)
    text = pipes.refused(pipes.directory / "truba.toml")[1]
    assert f"`truba log repair {data}/log`" in text


def test_g7_a_damaged_table_stops_the_pipe_when_it_is_read(pipes: Servers, data: Path) -> None:
    """Blocks are read when they are asked for: whoever asks hears nothing false, and the pipe ends and says why."""
    flip(min((data / "store").glob("*.sst")), 2_000)
    server = pipes.start_again(pipes.directory / "truba.toml")
    with Wire.dial(server.address) as client:
        client.send(b"".join(request("SHOW", f"1-{number}") for number in range(2, 2 + 2 * SESSIONS)))
        with pytest.raises(ConnectionError):  # noqa: PT012 - at the first, or after some
            for _ in range(2 * SESSIONS):
                client.next()
    assert server.wait() == STOPPED_ITSELF
    stopped = server.logged[-1]
    assert stopped["event"] == "the pipe has stopped"
    assert "damaged" in stopped["error"]
    assert "Traceback" not in "".join(server.lines)


def test_g7_a_damaged_record_is_never_handed_over(pipes: Servers, listener: Listener, data: Path) -> None:
    flip(min((data / "store").glob("*.sst")), 2_000)
    pipes.configure(kind(handler=listener.url))
    server = pipes.start_again(pipes.directory / "truba.toml")
    handler = listener.serve(7, credit=SESSIONS)
    with Wire.dial(server.address) as client:
        client.send(b"".join(request("RESUME", f"1-{number}") for number in range(2, 2 + 2 * SESSIONS)))
        with pytest.raises(ConnectionError):  # noqa: PT012 - at the first, or after some
            for _ in range(SESSIONS):
                assert len(handler.push()[7]) == RECORD_BYTES
    assert server.wait() == STOPPED_ITSELF
    assert "damaged" in server.logged[-1]["error"]


def test_a_data_directory_that_another_pipe_holds(pipes: Servers) -> None:
    server = pipes.start()
    code, text = pipes.refused(server.config)
    assert code == DATA
    assert f"process {server.pid}" in text
    assert "stop the process that holds it, or name another directory" in text
    with Wire.dial(server.address) as client:
        assert client.ask("PING") == b"PONG"


def test_a_directory_that_cannot_be_written(pipes: Servers, data: Path) -> None:
    if os.geteuid():
        data.chmod(0o500)
        (data / "log").chmod(0o500)
        code, text = pipes.refused(pipes.directory / "truba.toml")
    else:  # root may write anywhere, but not where the file system is mounted to be read only
        subprocess.run(["mount", "--bind", data, data], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", data], check=True)
            code, text = pipes.refused(pipes.directory / "truba.toml")
        finally:
            subprocess.run(["umount", data], check=True)
    assert code == DATA
    assert str(data) in text
    assert "cannot be opened" in text or "cannot be written" in text


def test_addresses_that_are_taken(pipes: Servers, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, text = pipes.refused(pipes.configure(node=f'listen = "{where}"'))
        assert (code, where in text) == (PROBLEM, True)
        assert "next: stop the process that listens there, or give --listen HOST:PORT" in text
    server = pipes.start(node='unix = "s"')
    code, text = pipes.refused(pipes.configure(node='unix = "s"\ndata = "other"', name="other.toml"))
    assert code == PROBLEM
    assert "another process listens there" in text
    (tmp_path / "precious").write_text("a file")
    code, text = pipes.refused(pipes.configure(node='unix = "precious"\ndata = "other"', name="other.toml"))
    assert code == PROBLEM
    assert "there is a file of that name" in text
    assert (tmp_path / "precious").read_text() == "a file"
    server.kill()
    assert (tmp_path / "s").is_socket()  # left by the kill, and no reason not to start
    assert pipes.start_again(server.config).unix


def test_a_configuration_with_mistakes(pipes: Servers) -> None:
    text = kind() + 'colour = "red"\n' + kind(7, "refund") + kind(8, "other", recovery_delay="soon")
    code, said = pipes.refused(pipes.configure(text, node='listne = "127.0.0.1:0"'))
    assert code == USAGE
    assert len(said.splitlines()) >= 4
    for word in ("listne", "colour", "refund", "soon"):
        assert word in said
    assert all("truba.toml:" in line for line in said.splitlines() if any(w in line for w in ("listne", "colour")))


def test_a_kind_that_is_gone_while_it_has_sessions(pipes: Servers, data: Path) -> None:
    code, text = pipes.refused(pipes.configure(kind(8, "refund")))
    assert code == USAGE
    assert f"kind 7: {SESSIONS}" in text
    assert "add the kinds again" in text
    server = pipes.start(kind(8, "refund") + kind(7, "renamed"))  # a name may change, a number may not
    with Wire.dial(server.address) as client:
        assert f"kind_7:name=renamed,active=0,stored={SESSIONS}".encode() in client.ask("INFO")


def test_what_is_stored_is_nobody_elses_to_read(data: Path, sound: Path) -> None:
    assert (sound / "data").stat().st_mode & 0o077 == 0
    for path in (sound / "data" / "log").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
