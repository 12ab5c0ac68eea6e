"""SIGTERM and SIGINT, from a command's first line on: who is told to stop while he still starts ends as one who serves.
SIGHUP, of who can take another configuration, from there on too: whenever it comes, it ends nothing.

signals = StopSignals()
signals.listen()                 first of all, before what is slow to import
with signals.calling(stop.set):  in the loop: whoever asks now, or has asked before, is heard
signals.ignore()                 the exit code is known: whoever asks again changes nothing
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

STOPS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Of this process; for its main thread."""

    def __init__(self, signums: Sequence[int]) -> None:
        self.signums = signums
        self.asked = False

    def listen(self) -> None:
        """From here on nothing is done but to remember that one came."""
        for signum in self.signums:
            signal.signal(signum, self._hear)

    @contextmanager
    def calling(self, ask: Callable[[], object]) -> Iterator[None]:
        """`ask()` on the loop's thread for each signal, and at once for those that came before. Afterwards all is as it
        was."""
        import asyncio  # slow, and there by now: `listen` comes before it

        loop = asyncio.get_running_loop()
        before = {signum: signal.getsignal(signum) for signum in self.signums}
        for signum in self.signums:
            loop.add_signal_handler(signum, ask)
        if self.asked:
            ask()
        try:
            yield
        finally:
            for signum, handler in before.items():
                loop.remove_signal_handler(signum)
                if handler is not None:  # else it is not Python's, and not known
                    signal.signal(signum, handler)

    def ignore(self) -> None:
        for signum in self.signums:
            signal.signal(signum, signal.SIG_IGN)

    def _hear(self, signum: int, frame: object) -> None:
        self.asked = True


class StopSignals(Signals):
    def __init__(self) -> None:
        super().__init__(STOPS)


class ReloadSignals(Signals):
    def __init__(self) -> None:
        super().__init__((signal.SIGHUP,))
