"""Webhooks: handlers that are reached by a signed POST (docs/webhooks.md).

    Webhook     for the pipe: where to post, signed with what; a `Kind`'s handler
    verify      for the receiver: the POST's body as a value, once its signature and age are proven; no framework needed
    answer      for the receiver: the body that says what becomes of the session

Nothing here does I/O; `truba.transports.webhook` posts.
"""

from truba.webhook.bodies import Parked, Ping, Unfinished, answer
from truba.webhook.receive import NotGenuine, verify
from truba.webhook.settings import Webhook

__all__ = ["NotGenuine", "Parked", "Ping", "Unfinished", "Webhook", "answer", "verify"]
