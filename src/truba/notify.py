"""What a service manager is told: `sd_notify` of systemd, in the few words that truba needs.

A message is one datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names; see sd_notify(3). Without that
variable nobody is listening and nothing is sent. The manager's own library would be one dependency for one datagram.
"""

from __future__ import annotations

import os
import socket

import structlog

log = structlog.get_logger("truba.notify")


def notify(**fields: str) -> None:
    """`notify(READY="1", STATUS="serving")`. A manager that cannot be told is logged: the pipe works without one."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    message = "\n".join(f"{name}={' '.join(value.split())}" for name, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            # A leading @ stands for the zero byte of Linux' abstract names.
            sending.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        log.warning("the service manager was not told", error=str(error), socket=path, message=message)
