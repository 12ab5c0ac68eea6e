"""Who is who: passwords that are checked on a thread, few at a time, and remembered."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable

import pytest

from truba import users as module
from truba.errors import Busy
from truba.passwords import PasswordHash, make
from truba.users import User, Users

QUICK = make(b"token", b"salt", slow=False)


def slow(password: bytes) -> PasswordHash:
    """scrypt that costs a test nothing."""
    return PasswordHash((2, 1, 1), b"salt", hashlib.scrypt(password, salt=b"salt", n=4, r=1, p=1, dklen=32))


ANN = User("ann", {}, password_hash=slow(b"hush"))
BOB = User("bob", {}, password_hash=QUICK)
CARL = User("carl", {}, certificate="carl.example")


async def who(users: Users, name: str, password: str) -> str | None:
    found = users.authenticate(name, password, "peer")
    if isinstance(found, Awaitable):
        found = await found
    return None if found is None else found.name


async def test_each_has_a_password_of_his_own() -> None:
    users = Users([ANN, BOB, CARL])
    right = {("ann", "hush"), ("bob", "token")}
    for _ in range(2):
        for name in ("ann", "bob", "carl", "eve", "", "default"):
            for password in ("hush", "token", "", "x" * 2_000, "carl.example"):
                assert await who(users, name, password) == (name if (name, password) in right else None)


async def test_a_password_that_was_right_costs_nothing_the_next_time() -> None:
    users = Users([ANN])
    pending = users.authenticate("ann", "hush", "")
    assert isinstance(pending, Awaitable)
    assert await pending is ANN
    assert users.authenticate("ann", "hush", "") is ANN
    assert isinstance(wrong := users.authenticate("ann", "hush ", ""), Awaitable)  # as dear as ever
    assert await wrong is None
    assert isinstance(again := users.authenticate("ann", "hush ", ""), Awaitable)
    assert await again is None


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 2)
    several = [User(f"u{n}", {}, password_hash=slow(b"%d" % n)) for n in range(3)]
    users = Users(several)
    for n in range(3):
        assert await who(users, f"u{n}", str(n)) == f"u{n}"
    assert users.authenticate("u2", "2", "") is several[2]
    assert users.authenticate("u1", "1", "") is several[1]
    assert isinstance(forgotten := users.authenticate("u0", "0", ""), Awaitable)
    assert await forgotten is several[0]


async def test_an_unknown_user_takes_as_long_as_a_known_one() -> None:
    """Whoever guesses names learns nothing from the clock: the same work is done."""
    users = Users([ANN, BOB])
    for name in ("eve", "ann"):
        assert isinstance(pending := users.authenticate(name, "guess", ""), Awaitable)
        assert await pending is None
    assert Users([BOB]).authenticate("eve", "guess", "") is None


async def test_guesses_wait_for_one_thread_and_few_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on, those who are remembered come in, and the rest is told to come later."""
    gate, at_once, most = threading.Event(), 0, 0
    real = PasswordHash.matches

    def held(self: PasswordHash, password: bytes) -> bool:
        nonlocal at_once, most
        if self.slow is not None and password.startswith(b"guess"):
            at_once += 1
            most = max(most, at_once)
            gate.wait(20)
            at_once -= 1
        return real(self, password)

    monkeypatch.setattr(PasswordHash, "matches", held)
    users = Users([ANN, BOB])
    assert await who(users, "ann", "hush") == "ann"
    guesses = [
        asyncio.ensure_future(who(users, name, f"guess {n}"))
        for n, name in enumerate(["ann", "eve"] * (module.WAITING_MAX // 2))
    ]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="try again later"):
        users.authenticate("ann", "guess", "")
    assert await who(users, "ann", "hush") == "ann"
    assert await who(users, "bob", "token") == "bob"
    gate.set()
    assert await asyncio.gather(*guesses) == [None] * module.WAITING_MAX
    assert most == 1
    assert await who(users, "ann", "guess") is None


async def test_a_reload_does_not_refuse_who_is_being_checked() -> None:
    users = Users([User("ann", {}, password_hash=slow(b"hush"))])
    pending = users.authenticate("ann", "hush", "")
    assert isinstance(pending, Awaitable)
    users.replace([User("ann", {}, password_hash=slow(b"hush"))])
    found = await pending
    assert found is not None
    assert users.authenticate("ann", "hush", "") is found


def test_a_certificate_is_of_one_user_or_of_none() -> None:
    users = Users([CARL, User("dora", {}, certificate="dora"), ANN])
    assert users.by_certificate(frozenset({"x", "carl.example"}), "") is CARL
    for names in (set[str](), {"carl"}, {"ann"}, {"CARL.EXAMPLE"}, {"carl.example", "dora"}):
        assert users.by_certificate(frozenset(names), "") is None


def test_nothing_secret_is_shown() -> None:
    assert repr(ANN) == "<user ann>"


async def test_others_from_now_on() -> None:
    users = Users([ANN, BOB])
    inside, gone = users.authenticate("bob", "token", ""), users.authenticate("ann", "hush", "")
    assert isinstance(inside, User)
    assert isinstance(gone, Awaitable)
    assert not inside.allows("NEW", 7)
    users.replace([User("bob", {"NEW": [7]}, password_hash=make(b"other", b"salt", slow=False)), CARL])
    assert inside.allows("NEW", 7)
    assert not inside.allows("NEW", 8)
    assert await gone is None  # checked while she was taken out
    assert await who(users, "bob", "token") is None
    assert users.authenticate("bob", "other", "") is inside
    assert users.by_certificate(frozenset({"carl.example"}), "") is CARL
    users.replace([ANN])
    assert not inside.allows("NEW", 7)
    assert users.by_certificate(frozenset({"carl.example"}), "") is None
