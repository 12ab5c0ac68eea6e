"""`https://` and `http://` routes: the session is posted to its handler, and the answer says what becomes of it.

    hand-over -> body, signature -> POST ... answer -> `truba.webhook.verdict` -> delete | write, store | put off | fail

The pipe itself is the session's owner while the POST is under way, so there is nobody to fence but this route: when
the hold has ended meanwhile (late, taken away), the POST is given up and its answer, if one comes, is dropped.
Nobody waits for what the answer decided to become durable: a crash before that, and the same session is posted again
at a higher epoch.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, assert_never

from truba.errors import OperationError, Unavailable, UnknownOutcome
from truba.kinds import Kind
from truba.node.owners import Handover, Hold, Owner
from truba.transports.posting import Broken, Poster, TooLarge, Unreached, tls_contexts
from truba.transports.tasks import HandoverTasks
from truba.types import Cause
from truba.webhook import Unfinished, Webhook
from truba.webhook.bodies import encode_parts
from truba.webhook.tracing import trace_headers
from truba.webhook.verdict import Done, Kept, NotNow, Refused, Verdict, judge

if TYPE_CHECKING:
    from truba.node.node import Node

POSTED_BYTES_MAX = 128 << 20
"""Of records that one route posts at once; above it sessions go one by one. In memory are also their bodies."""

ANSWER_BYTES_SPARE = 64 << 10
"""What an answer may hold beside one record of the largest size."""

THREAD_BYTES = 128 << 10
"""From here on a body is made and signed in a thread: a megabyte takes 4 ms."""


class WebhookRoute:
    """One address, one pool of connections. How many POSTs are under way at once is the kinds' `concurrency`."""

    def __init__(self, webhook: Webhook, kinds: Collection[Kind]) -> None:
        self._webhook = webhook
        self._kinds = kinds
        self._tls = tls_contexts(webhook)
        self._poster: Poster | None = None
        self._wake: Callable[[], None] = lambda: None
        self._tasks = HandoverTasks("webhook", self._run, self._give_up)
        self._posted_bytes = 0
        self._trouble = ""  # of the last POST

    def start(self, node: Node, wake: Callable[[], None]) -> None:
        kinds = self._kinds
        self._poster = Poster(
            self._webhook,
            self._tls,
            connections_max=sum(kind.concurrency for kind in kinds),
            answer_bytes_max=2 * max(kind.record_bytes_max for kind in kinds) + ANSWER_BYTES_SPARE,
            # Before the hand-over is late: what never arrived must cost no attempt.
            connect_s=min(kind.handler_timeout_s for kind in kinds) / 2,
        )
        self._tasks.start(node)
        self._wake = wake
        wake()

    def seat(self, kind: int) -> Owner | None:
        owner = self._tasks.owner
        if owner is not None and (under_way := owner.unpushed_bytes + self._posted_bytes):
            return owner if under_way < POSTED_BYTES_MAX else None
        return owner

    def state(self) -> str:
        last = f"; the last one: {self._trouble}" if self._trouble else ""
        return f"posts, {len(self._tasks)} under way{last}"

    async def stop(self) -> None:
        """Give up what is under way; its sessions are lost to it, and due again by their kind's policy."""
        await self._tasks.stop()
        if self._poster is not None:
            await self._poster.close()

    # -- one POST

    async def _run(self, node: Node, handover: Handover) -> None:
        poster, hold = self._poster, handover.hold
        assert poster is not None  # hand-overs come after start
        size = sum(map(len, handover.records))
        self._posted_bytes += size
        try:
            verdict, cause = await self._ask(node, poster, handover, size)
            if hold.ended:  # in the very turn in which the answer came
                self._drop(node, hold, "the session was taken away before it")
            else:
                self._carry_out(node, hold, verdict, cause)
        except (UnknownOutcome, Unavailable) as error:
            self._drop(node, hold, str(error))  # the pipe has stopped; at the next start the session is posted again
        except Exception as error:  # a defect: told as one, and the session does not wait for its timeout
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"posting session {hold.id} failed", "exception": error}
            )
            if not hold.ended:
                node.fail(hold, f"{type(error).__name__}: {error}")
        finally:
            self._posted_bytes -= size
            self._wake()

    async def _ask(self, node: Node, poster: Poster, handover: Handover, size: int) -> tuple[Verdict, Cause]:
        """What the handler says; where it says nothing, why, and what that counts as."""
        hold = handover.hold
        passed_ms = node.clock.steady_ms() - hold.touched_ms
        body = Unfinished(
            session=str(hold.id),
            epoch=hold.epoch,
            kind=hold.kind,
            name=node.kinds[hold.kind].name,
            attempt=handover.attempt,
            cause=handover.cause.value,
            deadline_ms=max(handover.deadline_ms - passed_ms, 0),
            records=handover.records,
        )
        message_id, timestamp_s = f"{hold.id}@{hold.epoch}", node.clock.now_ms() // 1000

        def prepare() -> tuple[list[bytes], dict[str, str]]:
            parts = encode_parts(body, self._webhook.format)
            return parts, poster.headers(message_id, timestamp_s, parts) | trace_headers(handover.trace)

        parts, headers = await asyncio.to_thread(prepare) if size >= THREAD_BYTES else prepare()
        try:
            reply = await poster.post(parts, headers)
        except Unreached as error:
            return NotNow(None, str(error)), Cause.UNREACHABLE
        except Broken as error:
            return Refused(str(error)), Cause.LOST
        except TooLarge as error:
            return Refused(str(error)), Cause.FAILED
        return judge(reply, node.clock.now_ms() / 1000), Cause.FAILED

    def _carry_out(self, node: Node, hold: Hold, verdict: Verdict, cause: Cause) -> None:
        """In one turn of the loop; the only step that may be refused comes first: all of it, or a failed attempt."""
        self._trouble = ""
        match verdict:
            case Done():
                node.delete(hold)
            case Kept(answer, delay_ms):
                try:
                    if answer.append:
                        node.append(hold, answer.append)
                    elif answer.replace is not None:
                        node.replace(hold, answer.replace)
                except OperationError as refusal:
                    self._fail(node, hold, f"its record was refused: {refusal}", Cause.FAILED)
                else:
                    node.store(hold, delay_ms)
            case NotNow(delay_s, reason):
                if delay_s is None:
                    self._fail(node, hold, reason, Cause.UNREACHABLE)
                else:
                    self._trouble = reason
                    node.put_off(hold, math.ceil(delay_s * 1000), reason)
            case Refused(reason):
                self._fail(node, hold, reason, cause)
            case _:
                assert_never(verdict)

    def _fail(self, node: Node, hold: Hold, reason: str, cause: Cause) -> None:
        self._trouble = reason
        node.fail(hold, reason, cause)

    def _give_up(self, node: Node, hold: Hold, cause: Cause) -> None:
        self._drop(node, hold, f"the session was taken away before it: {cause}")

    def _drop(self, node: Node, hold: Hold, reason: str) -> None:
        node.tell("webhook's answer dropped", session=str(hold.id), epoch=hold.epoch, reason=reason)
