"""What is written into the configuration of a nats-server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from truba.address import Address

PASSWORDS = {"truba": "truba-password", "admin": "admin-password", "sys": "sys-password"}
"""Of the users: `truba` may do what a node needs and no more, `admin` anything in the same account, `sys` looks at
the servers themselves."""


@dataclass(frozen=True, slots=True)
class NatsConfig:
    """What the servers' configuration says. The defaults are what truba needs; tests of its checks ask for less."""

    stream: str = "truba"  # what the user `truba` may use
    sync: str = "always"
    access: Literal["users", "anybody", "none"] = "users"
    """anybody: users too, but whoever brings no password is `truba`. none: no accounts at all."""
    jetstream: bool = True
    max_payload: str = "64MB"
    permissions: bool = True  # of `truba`; without them it may do anything in its account


def server_configuration(
    config: NatsConfig, name: str, directory: Path, clients: Address, routes: Address, cluster: Sequence[Address]
) -> str:
    """The file of one server. `clients`, `routes`: where it listens; `cluster`: the routes of all, its own included."""
    lines = [f"server_name: {name}", f'listen: "{clients}"', f"max_payload: {config.max_payload}"]
    if config.jetstream:
        lines.append(
            f'jetstream {{ store_dir: "{directory}", max_file_store: 4GB, max_memory_store: 256MB, '
            f'sync_interval: "{config.sync}" }}'
        )
    if len(cluster) > 1:
        known = ", ".join(f'"nats://{each}"' for each in cluster)
        lines.append(f'cluster {{ name: truba, listen: "{routes}", no_advertise: true, routes: [{known}] }}')
    if config.access == "none":
        return "\n".join((*lines, ""))
    permissions = f", permissions: {json.dumps(needed_permissions(config.stream))}" if config.permissions else ""
    lines += [
        "accounts {",
        f'  SYS {{ users: [ {{ user: sys, password: "{PASSWORDS["sys"]}" }} ] }}',
        "  TRUBA {",
        "    jetstream: enabled" if config.jetstream else "",
        "    users: [",
        f'      {{ user: admin, password: "{PASSWORDS["admin"]}" }}',
        f'      {{ user: truba, password: "{PASSWORDS["truba"]}"{permissions} }}',
        "    ]",
        "  }",
        "}",
        "system_account: SYS",
    ]
    if config.access == "anybody":
        lines.append("no_auth_user: truba")
    return "\n".join((*lines, ""))


def needed_permissions(stream: str) -> dict[str, dict[str, list[str]]]:
    """The least that a node's user must be allowed, as NATS writes it. Nobody else may publish to the subject."""
    api = "$JS.API"
    return {
        "publish": {
            "allow": [
                f"{stream}.log",
                f"{api}.STREAM.CREATE.{stream}",
                f"{api}.STREAM.INFO.{stream}",
                f"{api}.STREAM.DELETE.{stream}",
                f"{api}.STREAM.PURGE.{stream}",
                f"{api}.STREAM.MSG.GET.{stream}",
                f"{api}.CONSUMER.CREATE.{stream}",
                f"{api}.CONSUMER.DELETE.{stream}.*",
                f"$JS.FC.{stream}.>",
                "$SYS.REQ.USER.INFO",
            ]
        },
        "subscribe": {"allow": [f"_INBOX_{stream}.>"]},
    }
