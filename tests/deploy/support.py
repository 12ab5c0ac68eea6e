"""What tests of deployment share."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.service.process import SOURCE

ROOT = Path(__file__).parents[2]

LENT = {sys.base_prefix: "/opt/python", sysconfig.get_paths()["purelib"]: "/opt/site", str(SOURCE): "/opt/src"}
"""What a container has of this machine besides its /usr, and where: the interpreter and truba of these tests."""

ENVIRONMENT = "PYTHONPATH=/opt/src:/opt/site PYTHONHOME=/opt/python LD_LIBRARY_PATH=/opt/python/lib"
PYTHON = f"/opt/python/bin/{Path(sys.executable).resolve().name}"


def make_certificate(directory: Path) -> None:
    """tls.crt, tls.key and ca.crt, as a Secret of TLS has them, for this test only."""
    directory.mkdir(parents=True, exist_ok=True)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout tls.key -out tls.crt"
    subject = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:test"]
    subprocess.run([*command.split(), *subject], cwd=directory, capture_output=True, timeout=60, check=True)
    (directory / "ca.crt").write_bytes((directory / "tls.crt").read_bytes())
