"""A load of several processes, which looks like one: PROCESSES COMMAND... CLIENTS WARM_SECONDS MEASURE_SECONDS.

A process of Python uses one processor. So that this is not what is measured, clients are dealt out to several; all
of them are at work from before the first one measures until after the last one has.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence


def shares(clients: int, processes: int) -> list[int]:
    """Clients of each process: as equal as can be, none without any."""
    processes = min(clients, processes)
    return [clients // processes + (at < clients % processes) for at in range(processes)]


def merged(results: Sequence[dict[str, object]]) -> dict[str, object]:
    """Of processes that measured side by side: the mean of their seconds, the sum of the rest."""
    counts: Counter[int] = Counter()
    for result in results:
        for time_us, count in result["counts"]:  # type: ignore[attr-defined]
            counts[time_us] += count
    sums = {name: sum(float(str(result[name])) for result in results) for name in ("seconds", "user_s", "system_s")}
    return {**sums, "seconds": sums["seconds"] / len(results), "counts": sorted(counts.items())}


def main(processes: int, command: Sequence[str], clients: int, warm_s: str, measure_s: str) -> int:
    team = [
        subprocess.Popen([*command, f"{share}", warm_s, measure_s], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for share in shares(clients, processes)
    ]
    try:
        pipes = [(one.stdin, one.stdout) for one in team]
        for _, stdout in pipes:
            assert stdout is not None
            if stdout.readline() != b"begin\n":
                return 1  # its stderr is ours: it has said why
        print("begin", flush=True)  # noqa: T201
        results = []
        for _, stdout in pipes:
            assert stdout is not None
            line = stdout.readline()
            if not line:
                return 1
            results.append(json.loads(line))
        print(json.dumps(merged(results)), flush=True)  # noqa: T201
        sys.stdin.read()
        for stdin, _ in pipes:
            assert stdin is not None
            stdin.close()
        return max(abs(one.wait()) for one in team)
    finally:
        for one in team:
            if one.poll() is None:
                one.kill()
                one.wait()


if __name__ == "__main__":
    processes, *command, clients, warm_s, measure_s = sys.argv[1:]
    sys.exit(main(int(processes), command, int(clients), warm_s, measure_s))
