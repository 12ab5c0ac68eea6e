"""What a kind's `webhook` table says, and its secret, as the `Webhook` that is posted to."""

from __future__ import annotations

from truba.config.model import WebhookTable
from truba.errors import ConfigError
from truba.webhook import Webhook


def read_webhook(url: str, table: WebhookTable) -> Webhook:
    """What to post to and to sign with. Raises ConfigError, which shows no secret."""
    secret = table.secret("secret")
    if secret is None:
        raise ConfigError('there is no secret to sign with; write webhook = { secret_file = "transfer.whsec" }')
    written = secret.read().decode("ascii", "replace")
    try:
        return Webhook(
            url, written.split(), table.format, table.ca_file, table.certificate_file, table.key_file, table.insecure
        )
    except ConfigError as bad:
        raise ConfigError(f"{bad} ({secret})") from None
