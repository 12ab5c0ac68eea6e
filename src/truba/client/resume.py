"""After a broken connection: what became of an operation that was sent and not answered? Pure.

The pipe tells, for each session that this owner still holds, how many writes were applied. At most one operation of a
session is ever under way, so each question has one of three answers: it happened, it did not, nobody can know.

A session that is missing from the list was ended by the operation under way, *if* it cannot have been taken away
meanwhile. It is taken away when the owner stays away for longer than its grace, which the pipe counts from when it
notices the break. That is never before it processed the last request that we have an answer to, which is never before
we sent that request. So `in_time` compares the grace with the time since that request was sent, on one monotonic
clock; a tenth is kept back for clocks that run at different speeds.
"""

from __future__ import annotations

from typing import Literal

from truba.client.session import Act

Verdict = Literal["happened", "send again", "unknown"]

GRACE_PART_TRUSTED = 0.9


def in_time(now_s: float, last_answered_sent_s: float, grace_s: float) -> bool:
    """Can the pipe not have given up this owner yet?"""
    return now_s - last_answered_sent_s < grace_s * GRACE_PART_TRUSTED


def judge_new(listed: bool, within_grace: bool) -> Verdict:
    """A New with a tag."""
    if listed:
        return "happened"
    return "send again" if within_grace else "unknown"  # it may have happened, and been lost since


def judge(act: Act, acknowledged: int, applied: int | None, within_grace: bool) -> Verdict:
    """An operation on an open session.

    `acknowledged`: writes of the session that were answered. `applied`: writes that the pipe has applied; None: the
    session is not listed.
    """
    if applied is None:
        # Ended by this very operation; or taken away after a write that may have been applied before.
        return "happened" if act == "end" and within_grace else "unknown"
    if act == "write":
        match applied - acknowledged:
            case 0:
                return "send again"
            case 1:
                return "happened"
            case _:
                return "unknown"  # somebody else uses this owner's token
    return "send again"
