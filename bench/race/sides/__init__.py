"""The sides of the race, in the order of the table. Each module says how its server is configured and why."""

from __future__ import annotations

from bench.race.sides.dbos import Dbos
from bench.race.sides.nats import Nats
from bench.race.sides.postgresql import PostgreSql
from bench.race.sides.rabbitmq import RabbitMq
from bench.race.sides.redis import Redis
from bench.race.sides.restate import Restate
from bench.race.sides.side import Side
from bench.race.sides.truba import Truba, TrubaPython

SIDES: dict[str, Side] = {
    side.name: side for side in (Truba(), Redis(), PostgreSql(), Nats(), RabbitMq(), TrubaPython(), Dbos(), Restate())
}
