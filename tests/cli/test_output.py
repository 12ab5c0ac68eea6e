"""Where the output goes may be full, or closed: said in a line, never a traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import TRUBA, environment
from truba.log.file import FileLog


@pytest.mark.parametrize(("redirect", "code"), [(">/dev/full", 1), (">&-", 0)])
def test_output_that_cannot_be_written(tmp_path: Path, redirect: str, code: int) -> None:
    FileLog.open(tmp_path / "log", segment_bytes=65_536).close()
    line = f'exec "$@" {redirect}'
    command = ["sh", "-c", line, "sh", *TRUBA, "log", "verify", os.fspath(tmp_path)]
    done = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
