"""Answers that come later. Until then nothing more of that connection is read, so that answers keep their order.

Each function is called by a verb, which returns None when the answer is late; `Connection.go_on` is given it then:

    answer_later    when something that is awaited is done: an authenticator, a line in the audit log
    in_steps        after many steps, one in each turn of the loop, so that nobody else waits for all of them
    confirmed       when it is proved that this node's state is not out of date
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from truba.errors import DataError, LogPoisoned, OperationError

if TYPE_CHECKING:
    from truba.wire.connection import Connection


def answer_later(connection: Connection, work: Coroutine[Any, Any, bytes]) -> None:
    """What `work` comes to is the answer."""
    connection.hold_back()
    task = asyncio.get_running_loop().create_task(_awaited(connection, work))
    connection.tasks.add(task)
    task.add_done_callback(connection.tasks.discard)


async def _awaited(connection: Connection, work: Coroutine[Any, Any, bytes]) -> None:
    try:
        reply = await work
    except (OperationError, DataError) as error:
        reply = connection.refusal(error)
    except BaseException:
        connection.hang_up()
        raise
    connection.go_on(reply)


def in_steps(connection: Connection, steps: Generator[None, None, bytes]) -> bytes | None:
    """What `steps` returns in the end; None: it comes later.

    They may change very many sessions, so they let a checkpoint go first that is behind.
    """
    try:
        next(steps)
    except StopIteration as end:
        return cast(bytes, end.value)
    connection.hold_back()
    connection.node.when_room(partial(_step, connection, steps))
    return None


def _step(connection: Connection, steps: Generator[None, None, bytes]) -> None:
    if not connection.closing:  # else whoever asked is gone
        _go_on_if_ready(connection, partial(in_steps, connection, steps))


def confirmed(connection: Connection, answer: Callable[[], bytes | None]) -> bytes | None:
    """What `answer()` gives once it is proved that this node's state is not out of date; None: it comes later.

    If that cannot be proved, the connection ends without an answer.
    """
    settled: list[BaseException | None] = []
    waiting = False

    def done(error: BaseException | None) -> None:
        settled.append(error)
        if waiting:
            _confirmed_late(connection, error, answer)

    try:
        connection.node.log.confirm(done)
    except LogPoisoned as error:
        settled.append(error)
    if not settled:
        waiting = True
        connection.hold_back()
        return None
    if settled[0] is None:
        return answer()
    connection.hang_up()
    return None  # and so nothing that was asked behind it is looked at


def _confirmed_late(connection: Connection, error: BaseException | None, answer: Callable[[], bytes | None]) -> None:
    if connection.closing:
        return  # whoever asked is gone, or about to be: it must not take anything over any more
    if error is not None:
        connection.hang_up()
        return
    _go_on_if_ready(connection, answer)


def _go_on_if_ready(connection: Connection, answer: Callable[[], bytes | None]) -> None:
    try:
        reply = answer()
    except (OperationError, DataError) as error:
        reply = connection.refusal(error)
    if reply is not None:
        connection.go_on(reply)
