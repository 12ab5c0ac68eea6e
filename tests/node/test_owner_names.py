"""What a name promises: one connection speaks for it, and the grace is kept."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import pytest

from tests.node.test_life import TOKEN, kind
from tests.node.world import World
from truba.errors import BadRequest, Fenced, NoPerm
from truba.node.node import Limits
from truba.testing.jump import JumpClock

Jump = Callable[[Coroutine[object, object, None]], None]


def test_new_late_on_the_way_over_the_old_connection_opens_no_second_session(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        old, new = node.presence.attach(), node.presence.attach()
        node.presence.name_owner(old, TOKEN, 10_000)
        node.presence.name_owner(new, TOKEN, 10_000)
        with pytest.raises(Fenced):
            node.new(old, 7, [b"a"], 1)
        assert node.presence.name_owner(new, TOKEN, 10_000) == []
        node.new(new, 7, [b"a"], 1)

    jump(main())


def test_a_session_without_operations_is_kept_for_the_grace_at_least(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(idle_timeout_s=1), clock=clock)
        node = await world.start()
        owner, again = node.presence.attach(), node.presence.attach()
        node.presence.name_owner(owner, TOKEN, 10_000)
        hold = node.new(owner, 7, [b"a"], 1)
        await world.pass_time(9)
        assert [entry[0] for entry in node.presence.name_owner(again, TOKEN, 10_000)] == [hold.id]
        await world.pass_time(9)
        assert node.find(again, hold.id_text)
        await world.pass_time(2)
        with pytest.raises(Fenced):
            node.find(again, hold.id_text)

    jump(main())


def test_a_grace_over_the_limit_is_refused_not_cut(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock, limits=Limits(grace_max_s=10))
        node = await world.start()
        with pytest.raises(BadRequest, match="GRACE is at most 10 s here"):
            node.presence.name_owner(node.presence.attach(), TOKEN, 10_001)

    jump(main())


def test_a_token_of_one_user_is_of_no_use_to_another(jump: Jump, clock: JumpClock) -> None:
    """Here and while its owner is away; the owner itself comes back as before."""

    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner, thief, nobody, again = (node.presence.attach() for _ in range(4))
        owner.user, thief.user, again.user = "anna", "boris", "anna"
        node.presence.name_owner(owner, TOKEN, 10_000)
        hold = node.new(owner, 7, [b"a"], 1)
        for away in (False, True):
            if away:
                node.presence.detach(owner)
            for other in (thief, nobody):
                with pytest.raises(NoPerm, match="belongs to another user"):
                    node.presence.name_owner(other, TOKEN, 10_000)
                assert not other.digest
        assert [entry[0] for entry in node.presence.name_owner(again, TOKEN, 10_000)] == [hold.id]

    jump(main())


def test_a_connection_has_one_name_for_its_life(jump: Jump, clock: JumpClock) -> None:
    async def main() -> None:
        world = World(kind(), clock=clock)
        node = await world.start()
        owner = node.presence.attach()
        node.presence.name_owner(owner, TOKEN, 10_000)
        for holds in (False, True):
            if holds:
                node.new(owner, 7, [b"a"], 1)
            with pytest.raises(BadRequest, match="has named another owner already"):
                node.presence.name_owner(owner, TOKEN[::-1], 10_000)
        assert len(node.presence.name_owner(owner, TOKEN, 10_000)) == 1  # its own again
        nameless = node.presence.attach()
        node.new(nameless, 7, [b"a"])
        with pytest.raises(BadRequest, match="OWNER comes before the first NEW"):
            node.presence.name_owner(nameless, TOKEN[::-1], 10_000)

    jump(main())


def test_a_grace_that_nobody_has_any_more_leaves_nothing_behind(jump: Jump, clock: JumpClock) -> None:
    """Each client may have chosen another one, and all are looked through for the next lease that ends."""

    async def main() -> None:
        world = World(kind(idle_timeout_s=1), clock=clock)
        node = await world.start()
        for grace_ms in range(2_000, 2_100):
            owner = node.presence.attach()
            node.presence.name_owner(owner, b"%016d" % grace_ms, grace_ms)
            hold = node.new(owner, 7, [b"a"])
            if grace_ms % 2:
                node.delete(hold)
        limits = node.presence.leases._leases  # noqa: SLF001
        await world.pass_time(1.5)
        assert len(limits) == 50
        await world.pass_time(10)
        assert [*limits] == [60_000]  # of the handler that has got the others

    jump(main())
