"""How the configuration's [cluster] becomes the settings of its stream."""

from __future__ import annotations

from truba.config import Config, Secret
from truba.streams.settings import JetStreamSettings


def jetstream_settings(config: Config) -> JetStreamSettings:
    """Secrets are read from their files. ConfigError."""
    cluster = config.cluster
    assert cluster is not None  # whoever asks has looked
    return JetStreamSettings(
        servers=tuple(cluster.servers),
        stream=cluster.stream,
        replicas=cluster.replicas,
        user=cluster.user,
        password=_text(cluster.secret("password")),
        credentials_file=cluster.credentials_file,
        tls_ca_file=cluster.tls_ca_file,
        tls_cert_file=cluster.tls_cert_file,
        tls_key_file=cluster.tls_key_file,
        system_user=cluster.system_user,
        system_password=_text(cluster.secret("system_password")),
        system_credentials_file=cluster.system_credentials_file,
        trust_servers=cluster.trust_servers,
    )


def _text(secret: Secret | None) -> str | None:
    return None if secret is None else secret.text()
