"""The KVM backend: one host's guests, networks, pools and routers behind the agent's Protocol."""

import asyncio
from pathlib import Path

from pileus.agent.backend import HostSettings, Noticed, Progressed, Refused
from pileus.agent.backends.kvm import domain_xml, machine, programs, rates
from pileus.agent.backends.kvm.bridges import Bridges, device_of, physical_ports
from pileus.agent.backends.kvm.domain_xml import Surroundings
from pileus.agent.backends.kvm.domains import Domains
from pileus.agent.backends.kvm.launcher import RouterLauncher
from pileus.agent.backends.kvm.machine import CpuSample
from pileus.agent.backends.kvm.options import KvmOptions
from pileus.agent.backends.kvm.pools import Pools
from pileus.wire.messages import HostFacts, HostStats, VmSeen
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
from pileus.wire.places import DiskSpec, NetworkRef, PoolRef
from pileus.wire.router import RouterConfig

CONSOLES = "console"
"""Directory of the guests' serial logs, below the host's state directory; one `<name>.log` each."""
MOUNTS = "mounts"
ROUTER_PREFIX = "r-"
"""How the names of routers begin; those of guests never do."""


class KvmBackend:
    """One KVM host, with its agent on it: paths, devices and libvirtd are those of this machine."""

    def __init__(self, settings: HostSettings, options: KvmOptions, domains: Domains, routers: RouterLauncher) -> None:
        self._options = options
        self._address = settings.address
        self._consoles = Path(settings.state_dir) / CONSOLES
        self._routers = routers
        self._domains = domains
        self._bridges = Bridges(options, settings.address)
        self._pools = Pools(
            host_uuid=settings.host_uuid,
            mounts=Path(settings.state_dir) / MOUNTS,
            credentials=settings.credentials,
            max_image_bytes=options.max_image_gib << 30,
        )
        self._facts: HostFacts | None = None
        self._sample = CpuSample(0, 0)

    async def open(self, noticed: Noticed) -> None:
        await asyncio.to_thread(self._consoles.mkdir, mode=0o700, parents=True, exist_ok=True)
        try:
            await self._bridges.guard()
        except programs.Failed as error:
            raise Refused(Reason.FAILED, f"guests cannot be kept off this host: {error}") from error
        await self._domains.open(noticed)
        self._facts = await self.facts()
        await self._routers.revive()

    async def close(self) -> None:
        await self._domains.close()

    async def facts(self) -> HostFacts:
        facts: HostFacts = await self._domains.call(
            lambda connection: machine.facts(connection, self._options, self._address)
        )
        return facts

    async def stats(self, host_uuid: str) -> HostStats:
        """`cpu_used` is the average since the last call, or since the host's boot at the first one."""
        before = self._sample
        self._sample = await self._domains.call(machine.cpu_sample)
        used = machine.cpu_used(before, self._sample)
        bearer = await device_of(self._address)
        devices = physical_ports(bearer) or [bearer]
        guests = self._domains.watched()
        stats: HostStats = await self._domains.call(
            lambda connection: machine.stats(connection, host_uuid, used, devices, guests)
        )
        return stats

    async def inventory(self) -> list[VmSeen]:
        return [*await self._domains.inventory(), *await self._routers.seen()]

    # ---- storage

    async def attached_pools(self) -> list[str]:
        return []

    async def attach_pool(self, pool: PoolRef) -> PoolFacts:
        return await self._pools.attach(pool)

    async def detach_pool(self, pool: PoolRef) -> None:
        await self._pools.detach(pool)

    async def fetch_template(self, order: FetchTemplate, progressed: Progressed) -> ImageFacts:
        return await self._pools.fetch_template(order, progressed)

    async def remove_template(self, pool: PoolRef, name: str) -> None:
        await self._pools.remove_template(pool, name)

    async def create_volume(self, pool: PoolRef, name: str, size_bytes: int, template: str) -> ImageFacts:
        return await self._pools.create_volume(pool, name, size_bytes, template)

    async def delete_volume(self, pool: PoolRef, name: str) -> None:
        await self._pools.delete_volume(pool, name)

    # ---- networks

    async def plug_network(self, network: NetworkRef) -> None:
        await self._bridges.plug(network)

    async def unplug_network(self, network: NetworkRef) -> None:
        await self._bridges.unplug(network)

    # ---- guests

    async def seen(self, name: str) -> VmSeen | None:
        if name.startswith(ROUTER_PREFIX):
            return next((router for router in await self._routers.seen() if router.name == name), None)
        return await self._domains.seen(name)

    async def networks_of(self, name: str) -> tuple[NetworkRef, ...]:
        if name.startswith(ROUTER_PREFIX):
            return await self._routers.networks_of(name)
        return await self._domains.networks_of(name)

    async def start_domain(self, vm: VmSpec) -> VmFacts:
        if not await self._domains.running_in(vm):
            around = await self._surroundings(vm)
            await self.remove_domain(vm.name)
            try:
                await self._domains.start(vm, domain_xml.build(vm, around))
                await rates.apply(vm)
            except BaseException:
                await self.remove_domain(vm.name)
                raise
        return VmFacts(vnc_host=self._address, vnc_port=await self._domains.console(vm.name))

    async def shut_down(self, name: str, grace_seconds: float) -> bool:
        return await self._domains.shut_down(name, grace_seconds)

    async def remove_domain(self, name: str) -> None:
        await self._domains.remove(name)
        await rates.clear(name)
        await asyncio.to_thread(self._console_log(name).unlink, missing_ok=True)

    # ---- routers

    async def start_router(self, router: RouterSpec, config: RouterConfig) -> RouterFacts:
        for network in dict.fromkeys(nic.network for nic in router.nics):
            await self._bridges.plug(network)
        return await self._routers.start(
            router, config, tuple(self._bridges.name_of(nic.network) for nic in router.nics)
        )

    async def configure_router(self, name: str, config: RouterConfig) -> RouterFacts:
        return await self._routers.configure(name, config)

    async def remove_router(self, name: str) -> None:
        await self._routers.remove(name)

    # ---- what a guest needs around it

    async def _surroundings(self, vm: VmSpec) -> Surroundings:
        facts = self._facts or await self.facts()
        _require_room(vm, facts, await asyncio.to_thread(machine.available_memory_bytes))
        networks = dict.fromkeys(nic.network for nic in vm.nics)
        for network in networks:
            await self._bridges.plug(network)
        disks = {disk: str(await self._disk(disk)) for disk in vm.disks}
        return Surroundings(
            accelerated=facts.accelerated,
            address=self._address,
            cpu_mhz=facts.cpu_mhz,
            console_log=str(self._console_log(vm.name)),
            disks=disks,
            seats={network: self._bridges.seat(network) for network in networks},
            iso=str(await self._disk(DiskSpec(vm.disks[0].pool, vm.iso, 0))) if vm.iso and vm.disks else "",
            disk_cache=self._options.disk_cache,
        )

    async def _disk(self, disk: DiskSpec) -> Path:
        path = self._pools.volume(disk.pool, disk.volume)
        if not await asyncio.to_thread(path.exists):
            raise Refused(Reason.MISSING, f"the volume {disk.volume} is not in the pool")
        return path

    def _console_log(self, name: str) -> Path:
        return self._consoles / f"{name}.log"


def _require_room(vm: VmSpec, facts: HostFacts, available_bytes: int) -> None:
    """The server counts what it gave away; this is what is really there."""
    if vm.cpus > facts.cpus:
        raise Refused(Reason.NO_ROOM, f"{vm.name} wants {vm.cpus} CPUs, and this host has {facts.cpus}")
    wanted = vm.ram_mib * machine.MIB
    if wanted > min(facts.memory_bytes, available_bytes):
        raise Refused(Reason.NO_ROOM, f"{vm.name} wants {wanted} bytes of memory; {available_bytes} are free here")
