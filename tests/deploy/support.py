"""What tests of deployment share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from truba.config import Config

ROOT = Path(__file__).parents[2]


def needs(*keys: str) -> None:
    """Skip where this truba has no such table: what is deployed must say who may come in, and be asked how it is."""
    for key in keys:
        model = Config
        for name in key.split("."):
            if name not in model.model_fields:
                pytest.skip(f"this truba's configuration has no [{key}] yet")
            model = model.model_fields[name].annotation  # type: ignore[assignment]


def make_certificate(directory: Path) -> None:
    """tls.crt, tls.key and ca.crt, as a Secret of TLS has them, for this test only."""
    directory.mkdir(parents=True, exist_ok=True)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout tls.key -out tls.crt"
    subject = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:test"]
    subprocess.run([*command.split(), *subject], cwd=directory, capture_output=True, timeout=60, check=True)
    (directory / "ca.crt").write_bytes((directory / "tls.crt").read_bytes())
