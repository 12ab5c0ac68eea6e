"""How the configuration's [cluster] becomes the settings of its stream."""

from __future__ import annotations

from pathlib import Path

from truba.config import Config, read_secret
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
        password=_text(cluster.password_file),
        credentials_file=cluster.credentials_file,
        tls_ca_file=cluster.tls_ca_file,
        tls_cert_file=cluster.tls_cert_file,
        tls_key_file=cluster.tls_key_file,
        system_user=cluster.system_user,
        system_password=_text(cluster.system_password_file),
        trust_servers=cluster.trust_servers,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else read_secret(path).decode()
