"""From the configuration to the admin address: what `truba.service` and `truba.clustered` have in common.

Imported only where `[admin]` is configured: its libraries are an extra.
"""

from __future__ import annotations

from hashlib import sha256

from truba.admin.server import AdminServer
from truba.admin.subject import Settings, Subject, Token
from truba.config import Admin, Config
from truba.config.shown import shown
from truba.ports.audit import AuditLog
from truba.reload import Reloader
from truba.tls import Contexts


def admin_server(
    config: Config, admin: Admin, subject: Subject, audit: AuditLog, reloader: Reloader | None
) -> AdminServer:
    """Not started. ConfigError: the token cannot be read."""
    tokens = [Token(name, bytes.fromhex(token.sha256), token.may) for name, token in admin.tokens.items()]
    if (secret := admin.secret("token")) is not None:
        tokens.append(Token("operator", sha256(secret.read()).digest(), "operate"))
    return AdminServer(
        subject,
        Settings(
            listen=admin.listen,
            tokens=tuple(tokens),
            show_records=admin.show_records,
            configuration=lambda: shown(reloader.config if reloader else config),
            reload=None if reloader is None else reloader.reload,
            tls=None if admin.tls is None else Contexts(admin.tls.files, server_side=True),
        ),
        audit,
    )
