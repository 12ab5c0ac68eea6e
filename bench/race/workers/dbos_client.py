"""Workflows of three durable steps, run by DBOS in this process: URL CLIENTS WARM_SECONDS MEASURE_SECONDS.

Written for DBOS' own asyncio interface. It runs in build/race/venv, which holds nothing of truba.
"""

from __future__ import annotations

import asyncio
import os
import sys

from dbos import DBOS, DBOSConfig

from bench.race.workers.turn import turn

STEPS = 3
RECORD = "abcdefghijklmnopqrstuvwxyz" * 4


@DBOS.step()
async def write(number: int) -> str:
    return RECORD[:100]


@DBOS.workflow()
async def job() -> None:
    for number in range(STEPS):
        await write(number)


async def main(url: str, clients: int, warm_s: float, measure_s: float) -> None:
    config: DBOSConfig = {
        "name": "race",
        "executor_id": f"race-{os.getpid()}",  # whose workflows this process may take over when it starts: nobody's
        "system_database_url": url,
        "sys_db_pool_size": max(20, min(clients, 64)),
        "run_admin_server": False,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        await turn(job, clients, warm_s, measure_s)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    url, clients, warm_s, measure_s = sys.argv[1:]
    asyncio.run(main(url, int(clients), float(warm_s), float(measure_s)))
