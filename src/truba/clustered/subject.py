"""A member of a cluster as its admin address sees it."""

from __future__ import annotations

from truba import __version__
from truba.admin.subject import Doors, Subject
from truba.clock import Clock
from truba.cluster.door import Door
from truba.cluster.member import Member
from truba.clustered.storage import NodeStorage
from truba.frontends.listening import Listening


def member_subject(member: Member, storage: NodeStorage, listening: Listening, door: Door, clock: Clock) -> Subject:
    """Its node is there while it leads."""
    return Subject(
        name=member.name,
        version=__version__,
        clock=clock,
        current=lambda: member.node,
        role=lambda: member.role,
        leader=lambda: "" if member.leader == member.name else member.leader,
        trouble=lambda: member.trouble,
        doors=lambda: Doors(
            listening.connections, {"clients": listening.rejections.counts, "peers": door.rejections.counts}
        ),
        sync_us=lambda: storage.log.sync_us,
        log_bytes=lambda: storage.log.size_bytes,
        store_bytes=lambda: storage.store.size_bytes,
    )
