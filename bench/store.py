"""The RocksDB store with many sleeping sessions: `python bench/store.py [SESSIONS] [DIRECTORY]`.

Each session is stored (waits in the due order) and has one chunk with one record of 300 random bytes. Written in
commits of 100,000, flush and sync included. Reads are of random sessions, the cache cold at first. Memory is the growth
of the process's resident set (RssAnon: not the page cache). Last, all sessions are removed from the front of the due
order, and due pages are read from a mark, and for comparison from the front.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from truba.ports.store import DueKey, Put, Remove
from truba.store.rocks import RocksStore
from truba.testing.store import stored, summary

COMMIT_SESSIONS = 100_000


def rss_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1024


def timed(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def largest_gap_ms(act: Callable[[], object]) -> float:
    """How long another thread was kept from running while `act` ran on its own thread."""
    worker = threading.Thread(target=act)
    gap, last = 0.0, time.perf_counter()  # before the start: the worker may take the lock at once
    worker.start()
    while worker.is_alive():
        now = time.perf_counter()
        gap, last = max(gap, now - last), now
    worker.join()
    return gap * 1e3


def run(sessions: int, directory: Path) -> Table:
    table = Table("what", "result", title=f"{sessions:,} stored sessions of 300 bytes")
    dice = random.Random(1)
    before_mib = rss_mib()
    store = RocksStore.open(directory)
    stage_s = commit_s = gap_ms = peak_mib = 0.0
    for begin in range(1, sessions + 1, COMMIT_SESSIONS):
        numbers = range(begin, min(begin + COMMIT_SESSIONS, sessions + 1))
        changes = [Put(stored(n, n, chunks=(0,)), None, (0, [dice.randbytes(300)])) for n in numbers]
        staged = store.stage()
        add = staged.add
        begun = time.perf_counter()
        for change in changes:
            add(change)
        stage_s += time.perf_counter() - begun
        state = summary(numbers[-1], stored=numbers[-1])
        if begin == 1:
            gap_ms = largest_gap_ms(lambda staged=staged, state=state: store.commit(staged, state))
        else:
            commit_s += timed(lambda staged=staged, state=state: store.commit(staged, state))
        peak_mib = max(peak_mib, rss_mib() - before_mib)
        del changes, staged
    timed_sessions = max(sessions - COMMIT_SESSIONS, 1)
    table.add_row("stage", f"{stage_s / sessions * 1e6:.2f} us a session")
    table.add_row("commit, flushed and synced", f"{commit_s / timed_sessions * 1e6:.2f} us a session")
    table.add_row("longest that a commit kept another thread waiting", f"{gap_ms:.1f} ms")
    table.add_row("memory while writing, a commit of 100,000 included", f"+{peak_mib:.0f} MiB")
    table.add_row("on disk", f"{store.size_bytes / 2**20:,.0f} MiB, {store.size_bytes / sessions:.0f} bytes a session")
    table.add_row("close", f"{timed(store.close) * 1e3:.0f} ms")

    reopened: list[RocksStore] = []
    table.add_row("open", f"{timed(lambda: reopened.append(RocksStore.open(directory))) * 1e3:.1f} ms")
    store = reopened[0]
    asked = [dice.randint(1, sessions) for _ in range(20_000)]

    def read() -> None:
        for number in asked:
            head = store.get(number)
            assert head is not None
            store.chunk(number, 0)

    table.add_row("get + chunk, random, cold", f"{timed(read) / len(asked) * 1e6:.1f} us")
    table.add_row("get + chunk, the same again", f"{timed(read) / len(asked) * 1e6:.1f} us")
    absent = [sessions + n for n in range(1, 20_001)]
    table.add_row("get of none", f"{timed(lambda: [store.get(n) for n in absent]) / len(absent) * 1e6:.1f} us")

    def due_all() -> None:
        mark: DueKey | None = None
        while page := store.due(7, mark, 256):
            mark = page[-1]

    table.add_row("due, pages of 256", f"{timed(due_all) / sessions * 1e6:.2f} us a key")
    few = min(sessions, 1_000_000)

    def scan() -> None:
        for place, _ in enumerate(store.scan(-1)):
            if place == few:
                break

    table.add_row("scan", f"{timed(scan) / few * 1e6:.2f} us a session")
    table.add_row("memory after all reads", f"+{rss_mib() - before_mib:.0f} MiB")

    gone = min(200_000, sessions - 1_000)
    staged = store.stage()
    for number in range(1, gone + 1):
        staged.add(Remove(stored(number, number, chunks=(0,))))
    table.add_row(
        f"commit that removes {gone:,}", f"{timed(lambda: store.commit(staged, summary(sessions + 1))):.2f} s"
    )
    mark = DueKey(gone, gone, gone)
    table.add_row(
        "due page of 256 from a mark behind the removed", f"{timed(lambda: store.due(7, mark, 256)) * 1e6:.0f} us"
    )
    table.add_row("due page of 256 from the front", f"{timed(lambda: store.due(7, None, 256)) * 1e6:.0f} us")
    store.close()
    return table


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as directory:
        Console(width=120).print(run(sessions, Path(directory) / "store"))


if __name__ == "__main__":
    main()
