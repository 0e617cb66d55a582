"""A `Backend` whose host exists in memory only: same refusals, same arithmetic, no hypervisor."""

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pileus.agent.backend import Noticed, Progressed, Refused
from pileus.agent.backends.simulator.faults import Clock, Dice, Faults, When
from pileus.agent.backends.simulator.world import Guest, Image, Pool, SimulatedHost, World
from pileus.wire.messages import HostFacts, HostStats, VmChange, VmSeen, VmStats
from pileus.wire.operations import (
    FetchTemplate,
    ImageFacts,
    PoolFacts,
    Reason,
    RouterFacts,
    RouterSpec,
    VmFacts,
    VmSpec,
)
from pileus.wire.places import NetworkRef, PoolRef
from pileus.wire.router import RouterConfig, fingerprint

MIB = 1024 * 1024
CLONE_BYTES = 196_608
"""What an untouched clone takes on disk."""
FIRST_CONSOLE_PORT = 5900


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds. A call takes `call` up to twice that, decided by the seed."""

    call: float = 0.0
    shut_down: float = 2.0
    seed: str = "0"


class SimulatorBackend:
    """One host of a `World`. `stubborn` names guests that ignore a polite request to stop."""

    def __init__(
        self, world: World, host: SimulatedHost, *, clock: Clock, faults: Faults | None = None, pace: Pace | None = None
    ) -> None:
        self.world = world
        self.host = world.hosts.setdefault(host.uuid, host)
        self.stubborn: set[str] = set()
        self.template_bytes = 64 * MIB
        self.wrong_checksums: set[str] = set()
        """Checksums that no image has: fetching with one of them is rejected."""
        self._clock = clock
        self._faults = faults or Faults()
        self._pace = pace or Pace()
        self._dice = Dice(f"{self._pace.seed}/{host.uuid}")
        self._noticed: Noticed | None = None

    async def open(self, noticed: Noticed) -> None:
        self._noticed = noticed

    async def close(self) -> None:
        self._noticed = None

    async def facts(self) -> HostFacts:
        return HostFacts(
            hypervisor="Simulator",
            version="1",
            address=self.host.address,
            cpus=self.host.cpus,
            cpu_mhz=self.host.cpu_mhz,
            memory_bytes=self.host.memory_bytes,
        )

    async def stats(self, host_uuid: str) -> HostStats:
        running = [guest for guest in self.host.guests.values() if guest.running]
        lives = {guest.name: max(0.0, self._clock.now() - guest.started_at) for guest in running}
        cpus = sum(guest.spec.cpus for guest in running)
        return HostStats(
            uuid=host_uuid,
            cpu_used=min(1.0, 0.1 * cpus / self.host.cpus),
            memory_used_bytes=self.host.memory_bytes - self.host.memory_free_bytes,
            load_average=0.1 * cpus,
            received_bytes=sum(1000 * int(age) for age in lives.values()),
            sent_bytes=sum(500 * int(age) for age in lives.values()),
            vms=tuple(
                VmStats(name, cpu_seconds=0.1 * age, received_bytes=1000 * int(age), sent_bytes=500 * int(age))
                for name, age in lives.items()
            ),
        )

    async def inventory(self) -> list[VmSeen]:
        return [_seen(guest) for guest in self.host.guests.values()]

    async def attached_pools(self) -> list[str]:
        return sorted(self.host.attached)

    # storage

    async def attach_pool(self, pool: PoolRef) -> PoolFacts:
        async with self._call("attach_pool", pool.uuid):
            self.host.attached.add(pool.uuid)
            there = self.world.pool(pool.uuid)
            return PoolFacts(there.capacity_bytes, there.available_bytes)

    async def detach_pool(self, pool: PoolRef) -> None:
        async with self._call("detach_pool", pool.uuid):
            self.host.attached.discard(pool.uuid)

    async def fetch_template(self, order: FetchTemplate, progressed: Progressed) -> ImageFacts:
        async with self._call("fetch_template", order.name):
            pool = self._attached(order.pool)
            if order.sha256 in self.wrong_checksums:
                raise Refused(Reason.REJECTED, f"the image is not what {order.sha256} says")
            if order.name not in pool.templates:
                for percent in (0, 50):
                    progressed(percent, f"{percent} % of {order.name}")
                _take_room(pool, self.template_bytes)
                pool.templates[order.name] = Image(self.template_bytes, self.template_bytes, sha256=order.sha256)
            progressed(100, "")
            return _image_facts(pool.templates[order.name])

    async def remove_template(self, pool: PoolRef, name: str) -> None:
        async with self._call("remove_template", name):
            self._attached(pool).templates.pop(name, None)

    async def create_volume(self, pool: PoolRef, name: str, size_bytes: int, template: str) -> ImageFacts:
        async with self._call("create_volume", name):
            there = self._attached(pool)
            if name in there.volumes:
                return _image_facts(there.volumes[name])
            if template and template not in there.templates:
                raise Refused(Reason.MISSING, f"pool {pool.uuid} holds no template {template}")
            smallest = there.templates[template].virtual_bytes if template else 0
            _take_room(there, CLONE_BYTES)
            there.volumes[name] = Image(max(size_bytes, smallest), CLONE_BYTES, template)
            return _image_facts(there.volumes[name])

    async def delete_volume(self, pool: PoolRef, name: str) -> None:
        async with self._call("delete_volume", name):
            self._attached(pool).volumes.pop(name, None)

    # networks

    async def plug_network(self, network: NetworkRef) -> None:
        async with self._call("plug_network", str(network.tag)):
            self.host.bridges.add(network)

    async def unplug_network(self, network: NetworkRef) -> None:
        async with self._call("unplug_network", str(network.tag)):
            if not any(network in guest.networks for guest in self.host.guests.values()):
                self.host.bridges.discard(network)

    # guests

    async def seen(self, name: str) -> VmSeen | None:
        guest = self.host.guests.get(name)
        return None if guest is None else _seen(guest)

    async def networks_of(self, name: str) -> tuple[NetworkRef, ...]:
        guest = self.host.guests.get(name)
        return () if guest is None else guest.networks

    async def start_domain(self, vm: VmSpec) -> VmFacts:
        async with self._call("start_domain", vm.name):
            there = self._same_life(vm)
            if there is not None and there.running:
                return VmFacts(self.host.address, there.console_port)
            for disk in vm.disks:
                if disk.volume not in self._attached(disk.pool).volumes:
                    raise Refused(Reason.MISSING, f"pool {disk.pool.uuid} holds no volume {disk.volume}")
            guest = self._admit(vm)
            guest.console_port = self._console_port()
            self.host.guests[vm.name] = guest
            return VmFacts(self.host.address, guest.console_port)

    async def shut_down(self, name: str, grace_seconds: float) -> bool:
        async with self._call("shut_down", name):
            guest = self.host.guests.get(name)
            if guest is None or not guest.running:
                return True
            obeys = name not in self.stubborn and self._pace.shut_down <= grace_seconds
            await self._clock.sleep(self._pace.shut_down if obeys else grace_seconds)
            if obeys:
                guest.running = False
            return not guest.running

    async def remove_domain(self, name: str) -> None:
        async with self._call("remove_domain", name):
            self.host.guests.pop(name, None)

    # routers

    async def start_router(self, router: RouterSpec, config: RouterConfig) -> RouterFacts:
        async with self._call("start_router", router.name):
            there = self._same_life(router)
            if there is None or not there.running:
                there = self._admit(router)
                self.host.guests[router.name] = there
            # A newer config stays: this start was delivered before it.
            if there.config is None or there.config.generation <= config.generation:
                there.config = config
            return _router_facts(there.config)

    async def configure_router(self, name: str, config: RouterConfig) -> RouterFacts:
        async with self._call("configure_router", name):
            there = self.host.guests.get(name)
            if there is None or not there.running or there.config is None:
                raise Refused(Reason.MISSING, f"no router {name} runs here")
            if there.config.generation > config.generation:
                raise Refused(Reason.STALE_EPOCH, f"{name} runs generation {there.config.generation}")
            there.config = config
            return _router_facts(config)

    async def remove_router(self, name: str) -> None:
        async with self._call("remove_router", name):
            self.host.guests.pop(name, None)

    # what guests do by themselves

    def crash_guest(self, name: str) -> None:
        """The guest dies without having been asked. Noticed when the backend is open."""
        self._change(name, VmChange.CRASHED, running=False)

    def shut_down_inside(self, name: str) -> None:
        """Somebody inside the guest turns it off."""
        self._change(name, VmChange.STOPPED, running=False)

    def reboot_inside(self, name: str) -> None:
        """Somebody inside the guest restarts it."""
        self._change(name, VmChange.REBOOTED, running=True)

    def lose_power(self) -> None:
        """The host is switched off and on: no guest runs, no bridge is up, disks are as they were."""
        self.host.guests.clear()
        self.host.bridges.clear()
        self.host.attached.clear()

    def _change(self, name: str, change: VmChange, *, running: bool) -> None:
        guest = self.host.guests[name]
        guest.running = running
        guest.started_at = self._clock.now()
        if self._noticed is not None:
            self._noticed(name, guest.spec.uuid, guest.epoch, change)

    @asynccontextmanager
    async def _call(self, call: str, subject: str) -> AsyncIterator[None]:
        if self._pace.call > 0:
            await self._clock.sleep(self._pace.call * (1 + self._dice.throw()))
        self._faults.strike(self.host.uuid, call, subject, When.BEFORE)
        yield
        self._faults.strike(self.host.uuid, call, subject, When.AFTER)

    def _attached(self, pool: PoolRef) -> Pool:
        if pool.uuid not in self.host.attached:
            raise Refused(Reason.MISSING, f"pool {pool.uuid} is not attached here")
        return self.world.pool(pool.uuid)

    def _same_life(self, spec: VmSpec | RouterSpec) -> Guest | None:
        there = self.host.guests.get(spec.name)
        if there is not None and (there.spec.uuid, there.epoch) != (spec.uuid, spec.epoch):
            raise Refused(Reason.FAILED, f"another life of {spec.name} is here: {there.spec.uuid}, {there.epoch}")
        return there

    def _admit(self, spec: VmSpec | RouterSpec) -> Guest:
        if spec.cpus > self.host.cpus:
            raise Refused(Reason.NO_ROOM, f"{spec.cpus} cores wanted, {self.host.cpus} here")
        if spec.ram_mib * MIB > self.host.memory_free_bytes:
            raise Refused(Reason.NO_ROOM, f"{spec.ram_mib} MiB wanted, {self.host.memory_free_bytes // MIB} MiB free")
        guest = Guest(spec, running=True, started_at=self._clock.now())
        missing = set(guest.networks) - self.host.bridges
        if missing:
            raise Refused(Reason.FAILED, f"no bridge for {sorted(map(str, missing))}")
        return guest

    def _console_port(self) -> int:
        taken = {guest.console_port for guest in self.host.guests.values()}
        return next(port for port in range(FIRST_CONSOLE_PORT, 65536) if port not in taken)


def simulated_host(
    uuid: str, *, cpus: int = 8, cpu_mhz: int = 2000, memory_bytes: int = 16 * 1024 * MIB, address: str = "127.0.0.1"
) -> SimulatedHost:
    """A host with these means. Raises ValueError when they make no sense."""
    if min(cpus, cpu_mhz, memory_bytes) < 1:
        raise ValueError("cpus, cpu_mhz and memory_bytes must be positive")
    return SimulatedHost(uuid, cpus, cpu_mhz, memory_bytes, str(ipaddress.ip_address(address)))


def _take_room(pool: Pool, wanted_bytes: int) -> None:
    if wanted_bytes > pool.available_bytes:
        raise Refused(Reason.NO_ROOM, f"{wanted_bytes} bytes wanted, {pool.available_bytes} available")


def _seen(guest: Guest) -> VmSeen:
    return VmSeen(guest.name, guest.spec.uuid, guest.epoch, guest.running, guest.router)


def _image_facts(image: Image) -> ImageFacts:
    return ImageFacts(image.virtual_bytes, image.physical_bytes, image.sha256)


def _router_facts(config: RouterConfig) -> RouterFacts:
    return RouterFacts(config.generation, fingerprint(config))
