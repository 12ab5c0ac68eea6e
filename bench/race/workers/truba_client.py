"""Sessions through truba's own client: URL KIND CLIENTS WARM_SECONDS MEASURE_SECONDS."""

from __future__ import annotations

import sys

import uvloop

import truba
from bench.race.sides.side import OPERATIONS, RECORD
from bench.race.workers.turn import turn


async def main(url: str, kind: int, clients: int, warm_s: float, measure_s: float) -> None:
    async with truba.connect(url) as pipe:

        async def session() -> None:
            one = await pipe.new(kind, RECORD)
            for _ in range(OPERATIONS - 2):
                await one.append(RECORD)
            await one.delete()

        await turn(session, clients, warm_s, measure_s)


if __name__ == "__main__":
    url, kind, clients, warm_s, measure_s = sys.argv[1:]
    uvloop.run(main(url, int(kind), int(clients), float(warm_s), float(measure_s)))
