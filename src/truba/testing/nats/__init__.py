"""Real nats-servers on this machine, for tests, the demo and the benchmark: started, killed, started again.

One server, or three in a cluster, each with a JetStream that syncs every write. Each process is ended by its own id,
and by the kernel should this process die without a word. Nothing here is for production: the passwords are in the
open, and everything listens on loopback (or where a `Place` says).

    async with await NatsServers.start(directory, 3) as servers:
        stream = await JetStream.connect(servers.settings())
        await servers.kill(await servers.leader("truba"))
"""

from truba.testing.nats.config import PASSWORDS, NatsConfig, needed_permissions
from truba.testing.nats.server import Place, ServersFailed, find_server
from truba.testing.nats.servers import NatsServers

__all__ = ["PASSWORDS", "NatsConfig", "NatsServers", "Place", "ServersFailed", "find_server", "needed_permissions"]
