"""From any node of a cluster to the one that leads.

Each node says who leads when it is asked for LEADER; null: it does itself. A node that does not lead takes clients
too, and relays, so where the one it names cannot be reached from here, its own connection is as good. Never dials in a
circle.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from truba.address import address
from truba.client.link import Link
from truba.client.target import Target
from truba.errors import BadRequest, Unavailable

HOPS_MAX = 3
"""Nodes that name another one, in a row: more than that happens only while the leader is changing."""

HOP_S_MAX = 2.0
"""How long the named one may take to answer, of the time that the whole handshake has."""


async def connect(target: Target) -> Link:
    """A connection to the leader, or to a node that relays to it. OSError; Unavailable: nobody leads, for now."""
    link = await target.connect(Link)
    try:
        named = await _ask(link, target)
        for _ in range(HOPS_MAX):
            if named is None:
                return link
            try:
                async with asyncio.timeout(HOP_S_MAX):
                    link, named = await _hop(link, named)
            except (OSError, BadRequest):  # TimeoutError is one; BadRequest: it speaks TLS, and this target does not
                return link
        if named is None:
            return link
        raise Unavailable(f"the nodes do not agree on who leads: one still names {named}; nothing was sent")
    except BaseException:
        link.transport.abort()
        raise


async def _hop(before: Link, target: Target) -> tuple[Link, Target | None]:
    """A connection to `target` in the place of the one before, and the node that it names."""
    link = await target.connect(Link)
    try:
        named = await _ask(link, target)
    except BaseException:
        link.transport.abort()
        raise
    before.transport.abort()
    return link, named


async def _ask(link: Link, target: Target) -> Target | None:
    """The node that leads, in the eyes of this one. None: itself. ConnectionError: this is no pipe."""
    try:
        answer = await link.handshake(b"LEADER")
    except BadRequest as refusal:
        if "unknown command" not in str(refusal):
            raise  # it speaks TLS, or is no pipe
        return None  # an older pipe, which is always on its own
    if not answer:
        return None
    try:
        host, port = address(answer.decode() if isinstance(answer, bytes) else answer)
    except ValueError as error:
        raise ConnectionError(f"what answers is no pipe: it says {str(answer)[:64]!r} to LEADER") from error
    leads = replace(target, host=host, port=port, path="")
    return leads if leads.guarded else None  # else the connection at hand, which was said to be right, will do
