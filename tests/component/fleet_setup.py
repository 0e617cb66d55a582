"""Fleets of simulated hosts in this process, against a listener on loopback."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hosts_setup import Site, until
from sqlalchemy import insert, select

from pileus.agent.backends.simulator.faults import Clock
from pileus.agent.backends.simulator.fleet import SimulatedFleet, simulated_fleet
from pileus.agent.connection import Connection
from pileus.agent.enrolment import Token, enrol
from pileus.agent.identity import Identity
from pileus.agent.journal import Journal
from pileus.server.db.queries import fleet as fleets
from pileus.server.db.tables.host import host
from pileus.server.domain.host import HostState
from pileus.server.hosts.fleets import want

TOKEN = "a one-time secret of the fleet"


class MovedClock:
    """Time that passes when a test says so: whoever sleeps goes on then."""

    def __init__(self) -> None:
        self._now = 0.0
        self._asleep: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asleep.append((self._now + max(0.0, seconds), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let time pass, from one awakening to the next, so that what sleeps again within it wakes again within it."""
        until = self._now + seconds
        while True:
            due = min((at for at, _ in self._asleep), default=until + 1)
            if due > until:
                break
            self._now = max(self._now, due)
            woken = [future for at, future in self._asleep if at <= due]
            self._asleep = [(at, future) for at, future in self._asleep if at > due]
            for future in woken:
                if not future.done():
                    future.set_result(None)
            for _ in range(3):
                await asyncio.sleep(0)
        self._now = until


class RunningFleet:
    """A fleet with its line."""

    def __init__(self, site: Site, identity: Identity, options: Mapping[str, Any], clock: Clock | None = None) -> None:
        self.journal = Journal.in_memory()
        self.fleet: SimulatedFleet = simulated_fleet(self.journal, options, clock=clock)
        self.connection = Connection(
            servers=(site.endpoint,),
            identity=identity,
            hosts={},
            journal=self.journal,
            version="1",
            fleet=self.fleet,
            side_by_side=1000,
            first_backoff_seconds=0.01,
        )
        self._stop = asyncio.Event()
        self.task = asyncio.create_task(self.connection.run(self._stop))

    async def close(self) -> BaseException | None:
        """End it; returns what it died of, if it did."""
        self._stop.set()
        ended = await asyncio.gather(self.task, return_exceptions=True)
        self.journal.close()
        return ended[0]


async def enrolled_fleet(site: Site, name: str = "f") -> tuple[int, Identity]:
    """A new fleet whose agent has its certificate."""
    token = f"{TOKEN} {name}"
    with site.database.write() as tx:
        fleet_id = fleets.add(
            tx,
            name=name,
            token_hash=hashlib.sha256(token.encode()).hexdigest(),
            token_expires_at=tx.now + 60_000,
        )
    identity = Identity(site.directory / f"fleet-{name}")
    identity.state_dir.mkdir()
    who = await enrol(identity, site.endpoint, Token(token), address="")
    assert who.fleet
    return fleet_id, identity


@contextlib.asynccontextmanager
async def fleet_of(
    site: Site, identity: Identity, *, clock: Clock | None = None, **options: Any
) -> AsyncIterator[RunningFleet]:
    """A running fleet."""
    running = RunningFleet(site, identity, options, clock)
    try:
        yield running
    finally:
        await running.close()


def add_simulated(site: Site, count: int, *, prefix: str = "sim") -> list[int]:
    """Hosts that somebody added and nobody holds; returns their ids."""
    with site.database.write() as tx:
        tx.execute(
            insert(host),
            [
                {
                    "name": f"{prefix}-{number}",
                    "kind": "Routing",
                    "state": str(HostState.CONNECTING),
                    "zone_id": site.zone_id,
                    "hypervisor": "Simulator",
                    "created_at": tx.now,
                }
                for number in range(count)
            ],
        )
        mine = select(host.c.id).where(host.c.name.like(f"{prefix}-%")).order_by(host.c.id)
        ids = [row["id"] for row in tx.all(mine)]
        for host_id in ids:
            want(tx, host_id)
    return ids


def states(site: Site) -> dict[HostState, int]:
    """How many live hosts are in each state."""
    with site.database.read() as tx:
        found = [HostState(row["state"]) for row in tx.all(select(host.c.state).where(host.c.live == 1))]
    return {state: found.count(state) for state in set(found)}


async def all_up(site: Site, count: int) -> None:
    """Wait until so many hosts are Up and have lines."""

    def held() -> bool:
        with site.database.read() as tx:
            up = select(host.c.id).where(host.c.state == str(HostState.UP), host.c.server == site.settings.server)
            return len(tx.all(up)) == count

    await until(held)


@contextmanager
def never_down(site: Site) -> Iterator[None]:
    """No host may go Down inside."""
    before = len(site.heard.states)
    yield
    assert HostState.DOWN not in [state for _, state in site.heard.states[before:]]
