"""`Webhook`: where the pipe posts a kind's unfinished sessions, and what it signs them with; judged when it is made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from truba.address import can_be_looked_up, is_local, without_user
from truba.errors import ConfigError
from truba.webhook.signature import read_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECRETS_MAX = 2
"""The one in use and the one that takes its place."""

Format = Literal["json", "msgpack"]

_PLAIN = re.compile(r"[!-~]+").fullmatch  # sent as it is written: nothing that would have to be quoted


@dataclass(frozen=True)
class Webhook:
    """A handler that is reached by HTTP: `Kind(7, "transfer", handler=Webhook("https://...", secrets=["whsec_..."]))`.

    ConfigError when it makes no sense; it shows no secret, and neither does `repr`.
    """

    url: str
    """`https://host/path`; without user, query and fragment. `http://` to this machine, or with `insecure`."""
    secrets: str | Sequence[str] = field(repr=False)
    """One `whsec_...`, or two while they are changed: every POST is signed with each."""
    format: Format = "json"
    """Of the body: JSON with records in base64, or MessagePack with records as they are."""
    ca_file: str | Path | None = None
    """Certificates of a private authority, instead of the system's. The certificate is always verified."""
    certificate_file: str | Path | None = None
    """What is shown to a receiver that asks who posts; read again when it changes, as `ca_file` is."""
    key_file: str | Path | None = None
    """Its key; None: in the same file."""
    insecure: bool = False
    """Take `http://` beyond this machine: records then travel in plain text."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "secrets", (self.secrets,) if isinstance(self.secrets, str) else tuple(self.secrets))
        if wrong := wrong_url(self.url):
            raise ConfigError(f"webhook {without_user(self.url)!r}: {wrong}")
        if not self.insecure and not self.url.startswith("https:") and not is_local(urlsplit(self.url).hostname or ""):
            raise ConfigError(
                f"webhook {self.url!r}: records would leave this machine in plain text; write https://,"
                " or insecure = true if the network is private"
            )
        if self.format not in ("json", "msgpack"):
            raise ConfigError(f'webhook {self.url!r}: format is "json" or "msgpack", not {self.format!r}')
        if not 1 <= len(self.secrets) <= SECRETS_MAX:
            raise ConfigError(f"webhook {self.url!r}: give one secret, or two while they are changed")
        try:
            assert self.keys
        except ValueError as bad:
            raise ConfigError(f"webhook {self.url!r}: {bad}") from None  # the cause could show it

    @cached_property
    def keys(self) -> tuple[bytes, ...]:
        """What to sign with."""
        return tuple(map(read_key, self.secrets))


def wrong_url(url: str) -> str:
    """What keeps a URL from being a webhook's, or nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"this is no address: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "it has no host, or another scheme than https and http"
    if not can_be_looked_up(parts.hostname):
        return f"{parts.hostname!r} is no name of a host"
    if not _PLAIN(url):
        return "an address is made of ASCII characters without blanks; quote others as %.."
    if parts.username is not None or parts.query or parts.fragment:
        return "a route holds no user, query or fragment: what is secret belongs into the secret that signs"
    return ""
