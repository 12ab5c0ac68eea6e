"""A handler service as a process: `python -m tests.service.handlers LISTEN NOTES [SECRET]`, serving kind 7.

Its last record tells a session's handler what to do: `hold` until it is taken away, `raise`, `twice` (hold the first
time, finish the second), or anything else: finish. Each hand-over is noted as one line `id attempt cause records`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import truba


async def serve(listen: str, notes: Path, secret: str | None) -> None:
    async def handle(repeat: truba.RepeatData) -> None:
        with notes.open("a") as file:
            said = " ".join(record.decode() for record in repeat.records)
            file.write(f"{repeat.session.id} {repeat.attempt} {repeat.cause} {said}\n")
        match repeat.records[-1]:
            case b"raise":
                raise RuntimeError("it was told to")
            case b"hold":
                await asyncio.Event().wait()
            case b"twice" if repeat.attempt == 1:
                await repeat.session.append(b"half done", b"twice")
                await asyncio.Event().wait()

    async with truba.serve_handlers({7: handle}, listen, secret=secret) as server:
        sys.stderr.write(f"listening on {server.address}\n")
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))
