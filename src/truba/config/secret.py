"""Where a secret is: in a file of its own, or in a variable of the environment. Never in the configuration itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from truba.errors import ConfigError

SECRET_FILE_BYTES_MAX = 64 << 10


class Secret(NamedTuple):
    """One of the two."""

    file: Path | None
    env: str | None

    def __str__(self) -> str:
        return str(self.file) if self.env is None else f"the environment variable {self.env}"

    def read(self) -> bytes:
        """ConfigError when there is none."""
        if self.env is None:
            assert self.file is not None  # one of the two
            return read_secret(self.file)
        found = os.environb.get(self.env.encode(), b"")
        if not found:
            raise ConfigError(f"{self} is not set, or empty")
        return found

    def text(self) -> str:
        """The same in UTF-8. ConfigError."""
        try:
            return self.read().decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{self} does not hold UTF-8 text") from None


def read_secret(path: Path) -> bytes:
    """The secret in a file: its bytes without the newline at the end. Raises ConfigError when there is none."""
    try:
        with path.open("rb") as file:
            secret = file.read(SECRET_FILE_BYTES_MAX + 1)
    except OSError as bad:
        raise ConfigError(f"{path} cannot be read: {bad.strerror}") from bad
    if len(secret) > SECRET_FILE_BYTES_MAX:
        raise ConfigError(f"{path} holds more than {SECRET_FILE_BYTES_MAX} bytes; name a file with a secret in it")
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise ConfigError(f"{path} is empty; write the secret into it")
    return secret
