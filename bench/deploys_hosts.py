"""The hosts of `deploys.py`: a program of its own that holds many simulated hosts on the real wire.

Enrolment, TLS, frames, queues and answers are the agent's own. The journal lives in memory: a simulated host forgets
its guests when it ends, and the journal with them. On SIGTERM it writes when each volume was first asked of it.
"""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pileus import __version__
from pileus.agent.backends.simulator import RunningClock, SimulatedStore, SimulatorBackend, World, simulated_host
from pileus.agent.connection import Connection
from pileus.agent.enrolment import Endpoint, Token, enrol
from pileus.agent.host import Host, RoutingHost, StorageHost
from pileus.agent.identity import Identity
from pileus.agent.journal import Journal
from pileus.agent.main import log_as_json
from pileus.wire.messages import HostKind
from pileus.wire.operations import ImageFacts
from pileus.wire.places import PoolRef


class WatchedBackend(SimulatorBackend):
    """Notes when the making of a volume, the first thing a deploy asks of a host, has reached it."""

    arrived: dict[str, int]

    async def create_volume(self, pool: PoolRef, name: str, size_bytes: int, template: str) -> ImageFacts:
        self.arrived.setdefault(name, time.time_ns())
        return await super().create_volume(pool, name, size_bytes, template)


async def serve(plan: dict[str, Any]) -> dict[str, int]:
    """Enrol every host, then stay connected until SIGTERM. When each volume was first asked for."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    identity = Identity(Path(plan["state_dir"]))
    identity.state_dir.mkdir(parents=True, exist_ok=True)
    servers = [Endpoint("127.0.0.1", port) for port in plan["ports"]]
    journal = Journal.in_memory()
    world, arrived = World(), dict[str, int]()
    hosts: dict[str, Host] = {}
    for token in plan["tokens"]:
        who = await enrol(identity, servers[0], Token(token), address="127.0.0.1")
        if who.kind is HostKind.SECONDARY_STORAGE:
            hosts[who.uuid] = StorageHost(who.uuid, SimulatedStore(who.uuid, capacity_bytes=1 << 40))
            continue
        size = {"cpus": plan["cpus"], "memory_bytes": plan["memory_bytes"]}
        backend = WatchedBackend(world, simulated_host(who.uuid, cpu_mhz=2000, **size), clock=RunningClock())
        backend.arrived = arrived
        hosts[who.uuid] = RoutingHost(who.uuid, backend, journal)
    connection = Connection(
        servers=servers, identity=identity, hosts=hosts, journal=journal, version=__version__, side_by_side=64
    )
    for uuid, host in hosts.items():
        await host.open(connection.noticed(uuid))
    await connection.run(stop)
    return arrived


if __name__ == "__main__":
    log_as_json()
    given = json.loads(Path(sys.argv[1]).read_text())
    Path(given["arrived"]).write_text(json.dumps(asyncio.run(serve(given))))
