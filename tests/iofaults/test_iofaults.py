"""Any system call of the pipe may fail: it says so, and what it acknowledged is there; short versions of the suites."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.iofaults import case, seam
from tests.iofaults.ledger import Job, compare
from tests.iofaults.spread import spread
from tests.iofaults.traced import SHORT, Fault, Place, place_of, read_trace, why_not

SEAM_CASES = 600  # about five seconds
AT_ONCE = 2  # of the real ones: each waits for its pipe, and its pipe for the disk, half of the time

real = pytest.mark.skipif(bool(why_not()), reason=f"{why_not()}: only the simulated disk fails here")


@real
@pytest.mark.timeout(300)
def test_g1_a_system_call_of_the_real_process_fails() -> None:
    """Each sort of call once: some sixty cases, about half a minute on a machine with nothing else to do."""
    ends: Counter[str] = Counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for trial in pool.map(lambda n: case.trial(n).run(), range(len(case.sorts()))):
            ends[trial.end if trial.struck else "not reached"] += 1
    assert ends["refused to start"] > 3, ends
    assert ends["stopped itself"] > 3, ends
    assert ends["went on"] > 3, ends


@real
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["pwritev2", "fdatasync"])
def test_g1_the_commit_itself_fails_while_clients_wait(call: str, error: str) -> None:
    trial = case.Trial(Fault(call, "segment", error, 5), begun=False, seed=1).run()
    assert trial.struck
    assert trial.end == "stopped itself"


@real
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize(("call", "place"), [("write", "table"), ("fdatasync", "mark"), ("rename", "mark")])
def test_g1_a_checkpoint_fails(call: str, place: Place, error: str) -> None:
    trial = case.Trial(Fault(call, place, error, 2), begun=False, seed=1).run()
    assert trial.struck
    assert trial.end == "stopped itself"


@real
@pytest.mark.parametrize("error", ["EINTR", SHORT])
def test_an_interrupted_or_short_write_is_survived(error: str) -> None:
    trial = case.Trial(Fault("pwritev2", "segment", error, 20), begun=False, seed=1, killed=True).run()
    assert trial.struck
    assert trial.end == "went on"


def test_g1_g2_g5_a_call_of_the_simulated_disk_fails() -> None:
    ends: Counter[str] = Counter()
    for n in range(SEAM_CASES):
        trial = seam.seam_trial(n).run()
        ends[f"{trial.struck} {'went on' if trial.end == 'went on' else 'ended'}"] += 1
    for call in ("open", "pwritev", "fdatasync", "fsync", "rename", "unlink", "commit"):
        assert ends[f"{call} ended"], ends
    for call in ("open", "pwritev", "fdatasync", "fsync", "rename"):  # a disk that is full, a short write
        assert ends[f"{call} went on"], ends


@pytest.mark.parametrize("n", [1, 77, 300])
def test_a_case_is_the_same_each_time(n: int) -> None:
    first, second = (seam.seam_trial(n).run() for _ in range(2))
    assert (first, first.calls) == (second, second.calls)


def test_spread_visits_everything_and_the_far_ends_early() -> None:
    for count in (1, 2, 3, 10, 251):
        assert sorted(spread(place, count) for place in range(count)) == list(range(count))
    early = sorted(spread(place, 1000) for place in range(10))
    assert max(after - before for before, after in zip([0, *early], [*early, 1000], strict=True)) < 300


def test_the_trace_is_read_as_strace_writes_it() -> None:
    text = """\
12 1800.5 openat(AT_FDCWD</tmp>, "/d/log", O_RDONLY) = 3</d/log>
12 1800.6 fdatasync(3</d/log/segment-1.log> <unfinished ...>
13 1800.7 rename("/d/log/a.tmp", "/d/log/a") = -1 EIO (Input/output error) (INJECTED)
12 1800.8 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)
13 1800.9 +++ exited with 0 +++
"""
    opened, renamed, synced = read_trace(text)
    assert (opened.call, opened.paths, opened.injected) == ("openat", ("/tmp", "/d/log"), False)
    assert (renamed.call, renamed.paths, renamed.injected) == ("rename", ("/d/log/a.tmp", "/d/log/a"), True)
    assert (synced.thread, synced.paths, synced.injected) == (12, ("/d/log/segment-1.log",), True)


def test_places() -> None:
    places: list[tuple[tuple[str, ...], Place]] = [
        (("/d", "/d/data/log/segment-0000000001.log"), "segment"),
        (("/d/data/log/segment-1.log.tmp", "/d/data/log/segment-1.log"), "making"),
        (("/d/data/log",), "log"),
        (("/d/data",), "data"),
        (("/d/data/store/000007.sst",), "table"),
        (("/d/data/store/APPLIED.tmp", "/d/data/store/APPLIED"), "mark"),
        (("/d/data/store/000001.dbtmp", "/d/data/store/CURRENT"), "names"),
    ]
    assert [place_of(paths) for paths, _ in places] == [place for _, place in places]


def _job(name: bytes = b"a") -> Job:
    job = Job(name)
    for verb, records in (("new", [b"a/0:"]), ("append", [b"a/1:", b"a/2:"])):
        job.ask(verb, records)  # type: ignore[arg-type]
    return job


def test_the_ledger_allows_what_was_told_and_what_may_have_happened_and_nothing_else() -> None:
    job = _job()
    whole = [b"a/0:", b"a/1:", b"a/2:"]
    for allowed in ({}, {"1-2": whole[:1]}, {"1-2": whole}):
        compare({b"a": job}, allowed)
    job.acknowledged("1-2")
    for allowed in ({"1-2": whole[:1]}, {"1-2": whole}):
        compare({b"a": job}, allowed)
    refused: list[dict[str, list[bytes]]] = [
        {},  # lost
        {"1-2": whole[:2]},  # half done
        {"1-2": [b"a/0:", b"a/2:", b"a/1:"]},  # out of order
        {"1-3": whole},  # another session
        {"1-2": whole, "1-3": whole},  # twice
        {"1-2": whole, "1-3": [b"b/0:"]},  # nobody's
    ]
    for found in refused:
        with pytest.raises(AssertionError):
            compare({b"a": job}, found)
    job.acknowledged()
    job.ask("delete", [])
    compare({b"a": job}, {"1-2": whole})
    compare({b"a": job}, {})
    job.acknowledged()
    with pytest.raises(AssertionError):
        compare({b"a": job}, {"1-2": whole})


def test_nothing_is_acknowledged_after_an_unknown_outcome() -> None:
    job = _job()
    job.unknown = True
    with pytest.raises(AssertionError, match="after an unknown outcome"):
        job.acknowledged("1-2")
