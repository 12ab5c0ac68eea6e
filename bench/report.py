"""Measures, and writes the table between the `bench` marks of README.md and docs/benchmark.md.

python -m bench.report [options of truba bench]
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARKS = re.compile(r"(<!-- bench -->\n).*?(<!-- /bench -->)", re.DOTALL)


def main() -> None:
    command = [sys.executable, "-m", "truba", "bench", "--markdown", *sys.argv[1:]]
    table = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for path in (ROOT / "README.md", ROOT / "docs" / "benchmark.md"):
        text = path.read_text()
        path.write_text(MARKS.sub(lambda marks: f"{marks[1]}{table}{marks[2]}", text))


if __name__ == "__main__":
    main()
