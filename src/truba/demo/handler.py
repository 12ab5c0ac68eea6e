"""The handler of unfinished transfers: a service that the pipe dials, and the function to copy.

`finish` reads what the records say, does what they do not say was done, and says so in turn, for it may die half-way
itself. It always completes: a plan that reached the pipe is a promise. A step without a record may have happened or
not; it is simply asked for again, since the bank does it once (see `truba.demo.bank`).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from functools import partial
from pathlib import Path

import truba
from truba.demo.bank import Banks
from truba.demo.transfers import CREDITED, DEBITED, KIND, Transfer
from truba.demo.worker import STEP_S


def finish(banks_directory: Path, repeat: truba.sync.RepeatData) -> None:
    """Complete one transfer. Runs in a thread of its own; raising has the pipe hand it over again."""
    plan, *done = repeat.records
    transfer = Transfer.from_record(plan)
    session = repeat.session
    say("handed", transfer, repeat.cause)
    with Banks(banks_directory) as banks:
        if DEBITED not in done:
            time.sleep(STEP_S)
            banks.debit(transfer, by="handler", epoch=session.epoch)
            session.append(DEBITED)
        if CREDITED not in done:
            time.sleep(STEP_S)
            banks.credit(transfer, by="handler", epoch=session.epoch)
            session.append(CREDITED)
    session.delete()
    say("finished", transfer)


def say(what: str, transfer: Transfer, detail: str = "") -> None:
    print(f"{what} {transfer.id} {detail}\n", end="", flush=True)  # noqa: T201 - read by whoever started this service


async def serve(banks_directory: Path, listen: str) -> None:
    """Until SIGTERM."""
    handlers = {KIND: partial(finish, banks_directory)}
    async with truba.serve_handlers(handlers, listen):
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        print("ready", flush=True)  # noqa: T201 - read by whoever started this service
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("banks", type=Path)
    parser.add_argument("listen")
    options = parser.parse_args()
    asyncio.run(serve(options.banks, options.listen))


if __name__ == "__main__":
    main()
