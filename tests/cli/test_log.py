"""`truba log`: a real log, whole, torn and damaged; records shown only when asked for."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from truba.cli.main import main
from truba.codec.batch import encode_batch
from truba.log.file import FileLog
from truba.machine.events import Appended, Created, Deleted, Event, Opened, Paused, Replaced, Stored
from truba.ports.log import LogBatch
from truba.store.mark import write_mark
from truba.types import Cause, Position

EVENTS: list[Event] = [
    Opened(1_700_000_000_000, "truba"),
    Created(7, 1_700_000_000_001, b"", 0, -1, [b"first \x1b[31m"]),
    Appended(2, [b"second", "третья".encode()]),
    Replaced(2, b"only"),
    Stored(2, 1_700_000_000_500, Cause.FAILED, "no such account\x1b]0;owned\x07"),
    Created(8, 1_700_000_000_002, b"d" * 16, 5, 9, []),
    Deleted(2),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory whose log has one event in each batch."""
    log = FileLog.open(tmp_path / "log", segment_bytes=64 * 1024, reserve_bytes=0)
    for seq, event in enumerate(EVENTS, 1):
        done: list[BaseException | None] = []
        log.append(LogBatch(1, seq, 1, encode_batch([event])), done.append)
    log.close()
    assert done == [None]
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["log", *args])


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def damaged(data: Path) -> Path:
    """Flip one bit in the middle of the second frame's body."""
    segment = data / "log" / "segment-0000000001.log"
    content = bytearray(segment.read_bytes())
    content[content.index(b"first")] ^= 1
    segment.write_bytes(content)
    return data


def test_dump_shows_every_event_and_no_record(data: Path) -> None:
    result = run("dump", str(data))
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        [f"1-{seq}", type(event).__name__] for seq, event in enumerate(EVENTS, 1)
    ]
    assert "records=[10B]" not in result.stdout
    assert "records=[11B]" in result.stdout
    assert "2023-11-14T22:13:20.500+00:00" in result.stdout
    for content in ("first", "second", "only"):
        assert content not in result.stdout


def test_dump_with_records_never_sends_control_codes(data: Path) -> None:
    result = run("dump", str(data), "--records")
    assert "detail=no such account\\x1b]0;owned\\x07" in result.stdout
    assert "third" not in result.stdout
    assert "третья" in result.stdout
    assert "\x1b" not in result.stdout
    assert b"first \x1b[31m".hex(" ") in result.stdout


def test_dump_as_json(data: Path) -> None:
    shown = lines(run("dump", str(data), "--json"))
    assert [line["event"] for line in shown] == [type(event).__name__ for event in EVENTS]
    assert shown[2]["records"] == [6, 12]
    assert shown[3]["record"] == 4
    whole = lines(run("dump", str(data), "--json", "--records"))
    assert base64.b64decode(whole[1]["records"][0]) == b"first \x1b[31m"
    assert base64.b64decode(whole[3]["record"]) == b"only"


def test_dump_takes_nothing_for_a_session_that_began_none(tmp_path: Path) -> None:
    log = FileLog.open(tmp_path / "log", segment_bytes=64 * 1024, reserve_bytes=0)
    log.append(LogBatch(1, 1, 2, encode_batch([EVENTS[1], Paused(7, 0, True)])), lambda error: None)
    log.close()
    assert [line["event"] for line in lines(run("dump", str(tmp_path), "--json", "--session", "1"))] == ["Created"]
    assert lines(run("dump", str(tmp_path), "--json", "--session", "2")) == []


def test_dump_shows_times_that_no_calendar_has(tmp_path: Path) -> None:
    """A kind whose recovery_delay is to be for ever."""
    log = FileLog.open(tmp_path / "log", segment_bytes=64 * 1024, reserve_bytes=0)
    events: list[Event] = [Stored(2, due_ms, Cause.LOST) for due_ms in (253_402_300_799_000, 253_402_300_800_000)]
    log.append(LogBatch(1, 1, 2, encode_batch(events)), lambda error: None)
    log.close()
    result = run("dump", str(tmp_path))
    assert result.exit_code == 0
    assert "due_ms=9999-12-31T23:59:59.000+00:00" in result.stdout
    assert "due_ms=253402300800000" in result.stdout


def test_dump_a_part(data: Path) -> None:
    assert [line["seq"] for line in lines(run("dump", str(data), "--json", "--session", "2"))] == [2, 3, 4, 5, 7]
    assert [
        line["seq"] for line in lines(run("dump", str(data / "log"), "--json", "--after", "3", "--limit", "2"))
    ] == [4, 5]


def test_verify_a_sound_log(data: Path) -> None:
    (report,) = lines(run("verify", str(data), "--json"))
    assert report["sound"]
    assert (report["batches"], report["events"], report["tail"]["seq"]) == (7, 7, 7)
    readable = run("verify", str(data))
    assert readable.exit_code == 0
    assert readable.stdout.endswith("sound\n")


def test_verify_dump_and_repair_a_damaged_log(data: Path) -> None:
    damaged(data)
    result = run("verify", str(data), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["sound"], report["damage"]["seq"], report["tail"]["seq"]) == (False, 2, 1)
    readable = run("verify", str(data))
    assert readable.exit_code == 1
    assert "damage: segment-0000000001.log, offset" in readable.stdout
    assert "truba log repair" in readable.stderr
    dump = run("dump", str(data), "--json")
    assert dump.exit_code == 7
    assert [json.loads(line)["seq"] for line in dump.stdout.splitlines()] == [1]
    assert "segment-0000000001.log" in dump.stderr

    before = (data / "log" / "segment-0000000001.log").read_bytes()
    assert run("repair", str(data)).exit_code == 2
    assert (data / "log" / "segment-0000000001.log").read_bytes() == before
    (repair,) = lines(run("repair", str(data), "--yes", "--json"))
    assert (repair["repaired"], repair["tail"]["seq"]) == (True, 1)
    kept = b"".join(Path(file).read_bytes() for file in repair["kept"])
    assert b"second" in kept
    assert run("verify", str(data)).exit_code == 0
    assert lines(run("repair", str(data), "--yes", "--json"))[0]["repaired"] is False


@pytest.mark.parametrize("command", ["dump", "verify", "repair"])
def test_a_directory_that_is_not_there(command: str, tmp_path: Path) -> None:
    more = ["--yes"] if command == "repair" else []
    result = run(command, str(tmp_path / "nowhere"), *more)
    assert result.exit_code == 4
    assert "there is no such directory" in result.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("command", ["dump", "verify", "repair"])
def test_a_directory_of_somebody_else(command: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    result = run(command, str(tmp_path), *["--yes"] * (command == "repair"))
    assert result.exit_code == 7
    assert "holiday.jpg" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("command", ["dump", "verify", "repair"])
def test_a_data_directory_that_lost_its_log_is_no_foreign_one(command: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    result = run(command, str(tmp_path), *["--yes"] * (command == "repair"))
    assert result.exit_code == 7
    assert "holds a store, but no log" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_verify_sees_that_the_store_knows_more_than_the_log(tmp_path: Path) -> None:
    log = FileLog.open(tmp_path / "log", segment_bytes=65_536)
    log.append(LogBatch(2, 1, 51_381, b"\x90"), lambda error: None)
    log.close()
    (tmp_path / "store").mkdir()
    write_mark(tmp_path / "store", log.tail)
    assert CliRunner().invoke(main, ["log", "verify", str(tmp_path)]).exit_code == 0
    write_mark(tmp_path / "store", Position(2, 51_382, bytes(16)))
    result = CliRunner().invoke(main, ["log", "verify", str(tmp_path)])
    assert result.exit_code == 1
    assert "damage: the store holds the state of event 2-51382, which the log has lost" in result.output
    assert "sound" not in result.output


def test_the_store_is_asked_from_inside_the_log_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "store").mkdir()
    write_mark(data / "store", Position(1, 99, bytes(16)))
    monkeypatch.chdir(data / "log")
    result = run("verify", ".", "--json")
    assert (result.exit_code, json.loads(result.stdout)["store_ahead"]["seq"]) == (1, 99)


def test_a_damaged_mark_of_the_store_hides_nothing_that_is_told_of_the_log(data: Path) -> None:
    damaged(data)
    (data / "store").mkdir()
    (data / "store" / "APPLIED").write_bytes(b"not a mark")
    result = run("verify", str(data), "--json")
    assert (result.exit_code, json.loads(result.stdout)["damage"]["seq"]) == (1, 2)
    assert "APPLIED is not what was written" in result.stderr
    result = run("repair", str(data), "--yes", "--json")
    assert result.exit_code == 0
    done = json.loads(result.stdout)
    assert (done["repaired"], [Path(kept).parent for kept in done["kept"]]) == (
        True,
        [data / "log"] * len(done["kept"]),
    )
    assert "nothing in it was changed" not in result.stderr
    assert "cannot be told" in result.stderr
