"""What tests of deployment share."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make_certificate(directory: Path) -> None:
    """tls.crt, tls.key and ca.crt, as a Secret of TLS has them, for this test only."""
    directory.mkdir(parents=True, exist_ok=True)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout tls.key -out tls.crt"
    subject = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:test"]
    subprocess.run([*command.split(), *subject], cwd=directory, capture_output=True, timeout=60, check=True)
    (directory / "ca.crt").write_bytes((directory / "tls.crt").read_bytes())
