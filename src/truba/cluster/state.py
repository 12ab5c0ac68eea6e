"""A member's state: built from its own disk, written to the store there, and thrown away when it is ahead of the disk.

    restore -> checkpoints while the member follows or leads -> the last one -> close
       ^   `- deposed, or behind the stream -> discard
       `-------------------------------------'

The disk holds nothing but what is in the stream, so whatever is restored from it is right, and a state in memory is
worth no more than the time that it takes to build. What is written is the state of one exact place of the log: never
of one that the log has not come to, nor of one that it has passed. Who leads, and when a state is of no use any more,
is the member's to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from truba.errors import Unavailable
from truba.kinds import Kind
from truba.machine.machine import Machine
from truba.node.checkpoint import Checkpointer
from truba.node.node import Node
from truba.node.recovery import recover
from truba.ports.log import Log
from truba.ports.store import Store

STILL_S = 0.01
"""Between two looks whether the state is that of the own log, for who waits for the disk."""


class Storage(Protocol):
    """What a node keeps on its own disk."""

    @property
    def log(self) -> Log: ...

    @property
    def store(self) -> Store: ...

    async def replace(self) -> None:
        """Put a peer's checkpoint in the place of what is there, opened. TrubaError: no peer can give one now. If it is
        cancelled, one or the other is there, and open."""


class State:
    """One member's, for as long as it runs. `machine` is there from `restore` to `discard`.

    `failure`: what a checkpoint has failed with, and there will be no other one. `on_failure` is told of it; while a
    node leads by the state, that node is told instead.
    """

    def __init__(
        self,
        name: str,
        storage: Storage,
        kinds: Sequence[Kind],
        checkpoint_bytes: int,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.machine: Machine | None = None
        self.failure: BaseException | None = None
        self._name = name
        self._storage = storage
        self._kinds = {kind.number: kind for kind in kinds}
        self._checkpoint_bytes = checkpoint_bytes
        self._on_failure = on_failure
        self._checkpointer: Checkpointer | None = None
        self._closed = False

    def take_kinds(self, kinds: Sequence[Kind]) -> None:
        """Other kinds, from now on; who makes the next node knows of them."""
        self._kinds.clear()
        self._kinds.update((kind.number, kind) for kind in kinds)

    def restore(self) -> None:
        """As a follower needs it; from the disk, if it is not there."""
        if self.machine is None:
            storage = self._storage
            self.machine = recover(storage.log, storage.store, self._kinds)
            self._checkpointer = Checkpointer(
                self.machine, storage.log, storage.store, self._checkpoint_bytes, self._failed
            )
        machine, checkpointer = self.restored
        machine.kinds = self._kinds  # a node that led by it may have given it those of its own
        checkpointer.on_failure = self._failed
        if (failure := checkpointer.failure) is not None:  # told to a node that had ended
            self._failed(failure)

    @property
    def restored(self) -> tuple[Machine, Checkpointer]:
        """From `restore` to `discard`. Who keeps it longer has two states in memory, once the next one is restored."""
        assert self.machine is not None
        assert self._checkpointer is not None
        return self.machine, self._checkpointer

    async def discard(self) -> None:
        """It will be restored."""
        await self._close_checkpointer()
        self.machine = None

    async def close(self) -> None:
        """No checkpoint follows; who waits for one is told so."""
        self._closed = True
        await self._close_checkpointer()

    async def checkpoint(self, node: Node | None) -> None:
        """Have the state as it is in the store. `node`: the one that leads by it, if one does.

        Unavailable: there is no state just now, or it cannot be written.
        """
        machine, checkpointer = self.machine, self._checkpointer
        if machine is None or checkpointer is None:
            raise Unavailable(f"{self._name} has no state just now; ask another node")
        self._check_written(checkpointer)
        if node is not None:
            await node.checkpoint()
        else:
            tail = self._storage.log.tail
            while checkpointer.running or machine.seq != tail.seq:
                if machine is not self.machine or self._closed:
                    raise Unavailable(f"{self._name} is rebuilding its state, or has stopped; ask another node")
                await checkpointer.wait()
                await asyncio.sleep(STILL_S)
                tail = self._storage.log.tail
            await checkpointer.now(tail)
        self._check_written(checkpointer)

    async def last_checkpoint(self) -> None:
        """It makes the next start quick. Raises what went wrong with it, or with one that was under way."""
        machine, checkpointer = self.machine, self._checkpointer
        if machine is None or checkpointer is None:
            return
        await checkpointer.wait()
        tail = self._storage.log.tail
        if machine.seq == tail.seq and checkpointer.failure is None and self._storage.log.space == "plenty":
            await checkpointer.now(tail)
        if checkpointer.failure is not None:
            raise checkpointer.failure

    def _check_written(self, checkpointer: Checkpointer) -> None:
        if checkpointer.failure is not None:
            raise Unavailable(f"{self._name} cannot write a checkpoint ({checkpointer.failure}); ask another node")

    def _failed(self, error: BaseException) -> None:
        self.failure = error
        self._on_failure(error)

    async def _close_checkpointer(self) -> None:
        checkpointer, self._checkpointer = self._checkpointer, None
        if checkpointer is not None:
            await checkpointer.close()
