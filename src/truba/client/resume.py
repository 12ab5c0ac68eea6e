"""After a broken connection: what became of an operation that was sent and not answered? Pure.

The pipe tells, for each session that this owner still holds, how many writes were applied. At most one operation of a
session is ever under way, so each question has one answer: it happened, it did not, or nobody can know.

A session that is missing from the list was ended by the operation under way, *if* it cannot have been taken away
meanwhile. The pipe takes a session away when its owner stays away for longer than its grace, counted from when the
pipe notices the break, or when the session has seen no operation for its kind's idle_timeout, which for an owner with
a grace is never less than the grace. Both count from something that the pipe did not do before we sent the last
request that we have an answer to. So `in_time` compares the grace with the time since that request was sent, on one
monotonic clock; a tenth is kept back for clocks that run at different speeds.

All of this stands on the list being current. Where several nodes share a log, one that has been deposed without
knowing it would tell what was true before: so a pipe answers OWNER only once it is proved that nobody else had appended
anything when it was asked (`Log.confirm`), and hangs up if that cannot be proved.
"""

from __future__ import annotations

from typing import Literal

Act = Literal["write", "end", "touch"]
"""write: Append, Replace; the pipe counts them. end: Delete, Store, Fail: the hold is over. touch: not logged."""

Verdict = Literal["happened", "send again", "gone", "unknown"]
"""gone: it did not happen, and the session is not ours any more."""

GRACE_PART_TRUSTED = 0.9


def in_time(now_s: float, last_answered_sent_s: float, grace_s: float) -> bool:
    """Can the pipe not have taken anything away yet?"""
    return now_s - last_answered_sent_s < grace_s * GRACE_PART_TRUSTED


def judge_new(listed: bool, within_grace: bool) -> Verdict:
    """A New with a tag."""
    if listed:
        return "happened"
    return "send again" if within_grace else "unknown"  # it may have happened, and been lost since


def judge(act: Act, acknowledged: int, applied: int | None, within_grace: bool) -> Verdict:
    """An operation on an open session.

    `acknowledged`: writes of the session that were answered. `applied`: writes that the pipe has applied; None: the
    session is not listed. `within_grace`: of the connection and of this session both.
    """
    if applied is None:
        match act:
            case "end":  # by this very operation; or it was taken away before
                return "happened" if within_grace else "unknown"
            case "write":  # taken away, perhaps after the write was applied
                return "unknown"
            case "touch":
                return "gone"
    if act == "write":
        match applied - acknowledged:
            case 0:
                return "send again"
            case 1:
                return "happened"
            case _:
                return "unknown"  # somebody else uses this owner's token
    return "send again"
