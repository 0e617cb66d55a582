"""What the conformance suite needs of a backend besides the Protocol: something to work with, and hands inside guests.

A room that has a backend writes an `open_bench` and enters it in `BENCHES` of conftest.py.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from pileus.agent.backend import Backend
from pileus.agent.backends.simulator import (
    InstantClock,
    Pace,
    SimulatorBackend,
    World,
    simulated_host,
)
from pileus.wire.messages import VmChange
from pileus.wire.operations import FetchTemplate, RouterSpec, VmSpec
from pileus.wire.places import DiskSpec, Isolation, NetworkRef, NicSpec, PoolKind, PoolRef, Traffic
from pileus.wire.router import Lease, RouterConfig

Notice = tuple[str, str, int, VmChange]


class Bench(ABC):
    """A backend on a clean host. Attributes and hooks are the backend's own; the makers below serve all.

    `template` is an order that works and `bad_template` one whose checksum is wrong. `networks` are two guest
    networks that nothing uses. `too_much_ram_mib` is more than the host has.
    """

    backend: Backend
    pool: PoolRef
    template: FetchTemplate
    bad_template: FetchTemplate
    networks: tuple[NetworkRef, NetworkRef]
    too_much_ram_mib: int = 1 << 24
    ram_mib: int = 128
    grace_seconds: float = 60.0
    patience_seconds: float = 60.0

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self._noticed = asyncio.Event()

    @abstractmethod
    async def bridges(self) -> set[NetworkRef]:
        """The networks that have a bridge on the host now."""

    @abstractmethod
    async def booted(self, name: str) -> None:
        """Wait until the guest's operating system can be asked to stop."""

    @abstractmethod
    async def shut_down_inside(self, name: str) -> None:
        """Have the guest turn itself off, as a user inside it would."""

    @abstractmethod
    async def crash(self, name: str) -> None:
        """End the guest as a crash of its hypervisor process would."""

    @abstractmethod
    def ignores_requests(self, name: str) -> None:
        """Said before the start of a guest on a blank disk: it will not obey a polite request."""

    async def reopen(self) -> None:
        """What a restart of the agent does to the backend."""
        await self.backend.close()
        await self.backend.open(self.notice)

    def notice(self, name: str, uuid: str, epoch: int, change: VmChange) -> None:
        """Given to `open`; called in the event loop's thread or another."""
        self.notices.append((name, uuid, epoch, change))

    async def noticed(self, name: str, epoch: int, *changes: VmChange) -> None:
        """Wait until one of the changes was noticed."""

        def told() -> bool:
            return any((each[0], each[2]) == (name, epoch) and each[3] in changes for each in list(self.notices))

        await self.until(told)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something, within the bench's patience."""
        async with asyncio.timeout(self.patience_seconds):
            while not true():  # noqa: ASYNC110 (backends tell from any thread)
                await asyncio.sleep(0.02)

    def guest(self, volume: str, *, number: int = 3, epoch: int = 1, ram_mib: int | None = None) -> VmSpec:
        """A small guest with its root on `volume` and a card on the first network."""
        nic = NicSpec(f"02:00:0a:01:01:{number:02x}", f"10.1.1.{number}", 24, self.networks[0], 0)
        return VmSpec(
            name=f"i-2-{number}-VM",
            uuid=f"00000000-0000-4000-8000-0000000000{number:02x}",
            epoch=epoch,
            cpus=1,
            cpu_mhz=500,
            ram_mib=ram_mib or self.ram_mib,
            disks=(DiskSpec(self.pool, volume, 0),),
            nics=(nic,),
            vnc_password="conforms",
        )

    def router(self, *, epoch: int = 1) -> RouterSpec:
        """A router with its guest side on the second network."""
        nic = NicSpec("02:00:0a:01:02:01", "10.1.2.1", 24, self.networks[1], 0)
        return RouterSpec("r-9-VM", "00000000-0000-4000-8000-000000000099", epoch, (nic,))

    def config(self, generation: int, *, hosts: int = 1) -> RouterConfig:
        """A config with so many leases."""
        leases = tuple(Lease(f"02:00:0a:01:02:{n:02x}", f"10.1.2.{n}", f"guest-{n}") for n in range(2, 2 + hosts))
        return RouterConfig(
            "network-1",
            generation,
            "10.1.2.1",
            24,
            "cloud.internal",
            services=("dhcp", "dns", "user-data", "password"),
            leases=leases,
        )

    async def volume(self, name: str = "root-3") -> str:
        """A clone of the template, made if it is not there."""
        await self.backend.attach_pool(self.pool)
        await self.backend.fetch_template(self.template, lambda percent, text: None)
        await self.backend.create_volume(self.pool, name, 0, self.template.name)
        return name


OpenBench = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Bench]]
"""Makes a bench on a clean host and takes everything away again; session fixtures come from the request."""


class SimulatorBench(Bench):
    """The simulator, with time that never makes anybody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        host = simulated_host("00000000-0000-4000-8000-00000000aaaa")
        self.simulator = SimulatorBackend(self.world, host, clock=InstantClock(), pace=Pace(call=0.01, seed="bench"))
        self.backend = self.simulator
        self.pool = PoolRef("00000000-0000-4000-8000-00000000bbbb", PoolKind.FILESYSTEM, "/pool")
        self.template = FetchTemplate(self.pool, "template-1", "https://127.0.0.1/images/t", "11" * 32)
        self.bad_template = FetchTemplate(self.pool, "template-2", "https://127.0.0.1/images/t", "00" * 32)
        self.simulator.wrong_checksums.add("00" * 32)
        first, second = (NetworkRef(Traffic.GUEST, Isolation.VXLAN, tag) for tag in (1001, 1002))
        self.networks = (first, second)

    async def bridges(self) -> set[NetworkRef]:
        return set(self.simulator.host.bridges)

    async def booted(self, name: str) -> None:
        assert self.simulator.host.guests[name].running

    async def shut_down_inside(self, name: str) -> None:
        self.simulator.shut_down_inside(name)

    async def crash(self, name: str) -> None:
        self.simulator.crash_guest(name)

    def ignores_requests(self, name: str) -> None:
        self.simulator.stubborn.add(name)


@asynccontextmanager
async def open_simulator(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """The simulator's entry in `BENCHES`."""
    bench = SimulatorBench()
    await bench.backend.open(bench.notice)
    try:
        yield bench
    finally:
        await bench.backend.close()
