"""A server's listener on loopback with a real database, and agents that connect to it over TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlalchemy import insert, select
from websockets.asyncio.client import ClientConnection, connect

from pileus.agent.backends.simulator import RunningClock, SimulatorBackend, World, simulated_host
from pileus.agent.backends.simulator.faults import Faults
from pileus.agent.backends.simulator.store import SimulatedStore
from pileus.agent.connection import Connection
from pileus.agent.enrolment import Endpoint, Token, enrol
from pileus.agent.host import Host, RoutingHost, StorageHost
from pileus.agent.identity import Identity
from pileus.agent.journal import Journal
from pileus.server.db.clock import Clock
from pileus.server.db.tables import metadata
from pileus.server.db.tables.host import host, host_operation
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.host import HostState
from pileus.server.hosts import enrolment, operations
from pileus.server.hosts.authority import Authority
from pileus.server.hosts.callbacks import Callbacks
from pileus.server.hosts.listener import Listener, ListenerSettings
from pileus.server.services import vm_stats
from pileus.wire import PROTOCOL
from pileus.wire.messages import (
    AnyFromServer,
    Happened,
    Hello,
    HostFacts,
    HostIntro,
    HostKind,
    HostStats,
    VmSeen,
    decode_from_server,
    encode,
)
from pileus.wire.operations import AnyOperation

T = TypeVar("T")
PATIENCE_SECONDS = 20.0
FACTS = HostFacts("Simulator", "1", "127.0.0.1", cpus=2, cpu_mhz=1000, memory_bytes=1 << 30)


@dataclass
class Heard:
    """What the callbacks were told."""

    answers: list[operations.HostOperation] = field(default_factory=list)
    inventories: list[tuple[int, HostIntro]] = field(default_factory=list)
    happened: list[tuple[int, Happened]] = field(default_factory=list)
    reports: list[tuple[int, HostStats]] = field(default_factory=list)
    states: list[tuple[int, HostState]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    fail_answers: int = 0

    def callbacks(self) -> Callbacks:
        return Callbacks(
            on_answer=self._answer,
            on_inventory=lambda tx, intros: self.inventories.extend(intros),
            on_happened=self._happen,
            on_report=self._report,
            on_state=lambda tx, changes: self.states.extend((each.host_id, each.state) for each in changes),
        )

    def _answer(self, tx: Tx, operation: operations.HostOperation) -> None:
        if self.fail_answers:
            self.fail_answers -= 1
            raise RuntimeError("the job engine could not take it")
        self.answers.append(operation)
        self.order.append(operation.operation_id)

    def _report(self, tx: Tx, reports: Sequence[tuple[int, HostStats]]) -> None:
        vm_stats.reported_all(tx, reports)
        self.reports.extend(reports)

    def _happen(self, tx: Tx, host_id: int, message: Happened) -> None:
        self.happened.append((host_id, message))
        self.order.append(message.change)


class Site:
    """A database with one zone, an authority, and a listener that can be stopped and started again."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self.directory = directory
        self.database = Database(f"sqlite:///{directory}/pileus.db", clock)
        metadata.create_all(self.database.writing)
        with self.database.write() as tx:
            self.zone_id = tx.insert(
                insert(zone).values(
                    name="z",
                    dns1="192.0.2.1",
                    internal_dns1="192.0.2.1",
                    network_type="Advanced",
                    token="t",
                    created_at=1,
                )
            )
        self.authority = Authority.load(self.database)
        self.heard = Heard()
        self.settings = ListenerSettings("server-1", address="127.0.0.1", port=0, heartbeat_seconds=0.2)
        self.listener: Listener | None = None

    async def start(self) -> Listener:
        self.listener = Listener(self.database, self.authority, self.settings, self.heard.callbacks())
        self.listener.delivery.poll_seconds = 0.1
        await self.listener.start()
        return self.listener

    async def stop(self) -> None:
        if self.listener is not None:
            await self.listener.close()
            self.listener = None

    @property
    def endpoint(self) -> Endpoint:
        assert self.listener is not None
        return Endpoint("127.0.0.1", self.listener.port)

    def add_host(self, name: str = "h", *, kind: HostKind = HostKind.ROUTING) -> tuple[int, str]:
        """A new host row, and its id and UUID."""
        with self.database.write() as tx:
            host_id = tx.insert(
                insert(host).values(
                    name=name,
                    kind=str(kind),
                    state=str(HostState.CONNECTING),
                    zone_id=self.zone_id,
                    hypervisor="Simulator",
                    created_at=tx.now,
                )
            )
            return host_id, str(tx.scalar(select(host.c.uuid).where(host.c.id == host_id)))

    def token(self, host_id: int, *, valid_seconds: int = 60) -> str:
        with self.database.write() as tx:
            return enrolment.create_token(tx, host_id, valid_seconds=valid_seconds)

    def request(self, host_id: int, operation_id: str, operation: AnyOperation, *, queue: str = "q") -> None:
        with self.database.write() as tx:
            operations.request(tx, host_id, operation, operation_id=operation_id, queue=queue)

    def operation(self, operation_id: str) -> operations.HostOperation:
        with self.database.read() as tx:
            found = operations.by_id(tx, operation_id)
        assert found is not None
        return found

    def state(self, host_id: int) -> HostState:
        with self.database.read() as tx:
            return HostState(tx.scalar(select(host.c.state).where(host.c.id == host_id)))

    def progress_of(self, operation_id: str) -> int:
        with self.database.read() as tx:
            found = tx.scalar(select(host_operation.c.percent).where(host_operation.c.operation_id == operation_id))
        return int(found)

    async def answered(self, operation_id: str) -> operations.HostOperation:
        await until(lambda: not self.operation(operation_id).pending)
        return self.operation(operation_id)

    async def enrolled(self, name: str = "h", *, kind: HostKind = HostKind.ROUTING) -> tuple[int, Identity]:
        """A new host whose agent has its certificate."""
        host_id, _ = self.add_host(name, kind=kind)
        identity = Identity(self.directory / f"agent-{name}")
        identity.state_dir.mkdir()
        await enrol(identity, self.endpoint, Token(self.token(host_id)), address="127.0.0.1")
        return host_id, identity


class Agent:
    """An agent in this process: simulated hosts, a real journal, a real line."""

    def __init__(self, site: Site, identity: Identity, *, world: World | None = None) -> None:
        self.site = site
        self.identity = identity
        self.world = world or World()
        self.faults = Faults()
        self.backends: dict[str, SimulatorBackend] = {}
        self.journal = Journal(identity.state_dir / "journal.db")
        self.connection: Connection
        self.stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._hosts: dict[str, Host] = {}

    async def start(self) -> None:
        for who in self.identity.hosts():
            if who.kind is HostKind.SECONDARY_STORAGE:
                self._hosts[who.uuid] = StorageHost(who.uuid, SimulatedStore(who.uuid, capacity_bytes=1 << 40))
                continue
            backend = SimulatorBackend(self.world, simulated_host(who.uuid), clock=RunningClock(), faults=self.faults)
            self.backends[who.uuid] = backend
            self._hosts[who.uuid] = RoutingHost(who.uuid, backend, self.journal)
        self.connection = Connection(
            servers=(self.site.endpoint,),
            identity=self.identity,
            hosts=self._hosts,
            journal=self.journal,
            version="1",
            first_backoff_seconds=0.01,
        )
        for uuid, each in self._hosts.items():
            await each.open(self.connection.noticed(uuid))
        self._task = asyncio.create_task(self.connection.run(self.stop))

    async def ended(self) -> BaseException | None:
        """How it ended by itself."""
        assert self._task is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await asyncio.gather(self._task, return_exceptions=True))[0]

    async def close(self) -> None:
        self.stop.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        for each in self._hosts.values():
            await each.close()
        self.journal.close()


@contextlib.asynccontextmanager
async def site_in(directory: Path, clock: Clock | None = None) -> AsyncIterator[Site]:
    """A site with a running listener."""
    site = Site(directory, clock)
    await site.start()
    try:
        yield site
    finally:
        await site.stop()
        site.database.dispose()


@contextlib.asynccontextmanager
async def agent_of(site: Site, identity: Identity, *, world: World | None = None) -> AsyncIterator[Agent]:
    """A running agent."""
    agent = Agent(site, identity, world=world)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.close()


@contextlib.asynccontextmanager
async def raw_line(
    site: Site, identity: Identity | None, *, context: ssl.SSLContext | None = None
) -> AsyncIterator[ClientConnection]:
    """A WebSocket to the listener on which a test says what it likes."""
    if context is None:
        assert identity is not None
        context = identity.client_context()
    async with connect(
        site.endpoint.url, ssl=context, compression=None, proxy=None, ping_interval=None, close_timeout=5
    ) as line:
        yield line


async def hello(
    line: ClientConnection, *uuids: str, protocol: int = PROTOCOL, holds: tuple[VmSeen, ...] = ()
) -> AnyFromServer:
    """Introduce hosts; returns the server's first frame."""
    intros = tuple(HostIntro(uuid, HostKind.ROUTING, FACTS, holds) for uuid in uuids)
    await line.send(encode(Hello(protocol, "1", intros)))
    return await heard(line)


async def heard(line: ClientConnection) -> AnyFromServer:
    """The next frame of the server."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        frame = await line.recv()
    assert isinstance(frame, bytes)
    message: AnyFromServer = decode_from_server(frame)
    return message


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that another task brings about."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 (what is waited for is a row)
            await asyncio.sleep(0.01)
