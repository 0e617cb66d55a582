"""What is true in a simulated world: who runs where, what lies in which pool, which bridges are up.

Shared pools are one thing seen from several hosts, so all hosts of a world share one `World`. It survives the
backends that act on it, as real guests survive their agent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pileus.wire.operations import RouterSpec, VmSpec
from pileus.wire.places import NetworkRef
from pileus.wire.router import RouterConfig


@dataclass
class Guest:
    """A guest or router on a host. `generation` and `config` are set for routers only."""

    spec: VmSpec | RouterSpec
    running: bool
    console_port: int = 0
    started_at: float = 0.0
    config: RouterConfig | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def epoch(self) -> int:
        return self.spec.epoch

    @property
    def router(self) -> bool:
        return isinstance(self.spec, RouterSpec)

    @property
    def networks(self) -> tuple[NetworkRef, ...]:
        """The networks it is plugged into, each once."""
        return tuple(dict.fromkeys(nic.network for nic in self.spec.nics))

    @property
    def memory_bytes(self) -> int:
        return self.spec.ram_mib * 1024 * 1024


@dataclass
class Image:
    """A volume or template file: sizes in bytes, and what it is a clone of."""

    virtual_bytes: int
    physical_bytes: int
    template: str = ""
    sha256: str = ""


@dataclass
class Pool:
    """A primary storage pool."""

    capacity_bytes: int
    templates: dict[str, Image] = field(default_factory=dict)
    volumes: dict[str, Image] = field(default_factory=dict)

    @property
    def available_bytes(self) -> int:
        """Space that is not written yet."""
        used = sum(image.physical_bytes for image in (*self.templates.values(), *self.volumes.values()))
        return self.capacity_bytes - used


@dataclass
class SimulatedHost:
    """A host of the world."""

    uuid: str
    cpus: int
    cpu_mhz: int
    memory_bytes: int
    address: str
    guests: dict[str, Guest] = field(default_factory=dict)
    bridges: set[NetworkRef] = field(default_factory=set)
    attached: set[str] = field(default_factory=set)

    @property
    def memory_free_bytes(self) -> int:
        return self.memory_bytes - sum(guest.memory_bytes for guest in self.guests.values() if guest.running)


class NotTrue(AssertionError):
    """The world is not as it must be."""


class World:
    """All hosts and pools, and what must hold of them."""

    def __init__(self) -> None:
        self.hosts: dict[str, SimulatedHost] = {}
        self.pools: dict[str, Pool] = {}
        self.pool_capacity_bytes = 1 << 40

    def pool(self, uuid: str) -> Pool:
        """The pool of this UUID, made empty on first mention."""
        return self.pools.setdefault(uuid, Pool(self.pool_capacity_bytes))

    def guests(self) -> Iterator[tuple[str, Guest]]:
        """Every guest and router with its host's UUID, running or not."""
        for uuid, host in self.hosts.items():
            for guest in host.guests.values():
                yield uuid, guest

    def running(self, name: str) -> list[tuple[str, int]]:
        """Host UUID and epoch of each running copy of the named guest."""
        return [(host, guest.epoch) for host, guest in self.guests() if guest.name == name and guest.running]

    def config_of(self, name: str) -> RouterConfig | None:
        """The config applied on the running router of this name."""
        return next((guest.config for _, guest in self.guests() if guest.name == name and guest.running), None)

    def volumes(self) -> set[str]:
        """Names of all volumes in all pools."""
        return {name for pool in self.pools.values() for name in pool.volumes}

    def templates(self) -> set[str]:
        """Names of all templates in all pools."""
        return {name for pool in self.pools.values() for name in pool.templates}

    def bridges(self) -> set[tuple[str, NetworkRef]]:
        """Every bridge with its host's UUID."""
        return {(uuid, network) for uuid, host in self.hosts.items() for network in host.bridges}

    def assert_sound(self) -> None:
        """What must hold at every moment. Raises `NotTrue`.

        No two running copies of one guest, no MAC twice on a network, every running guest has its bridges, its
        pools and its volumes, no volume is used by two running guests, no host gave away more memory than it has.
        """
        names: dict[str, str] = {}
        disks: dict[tuple[str, str], str] = {}
        macs: dict[tuple[NetworkRef, str], str] = {}
        for uuid, guest in self.guests():
            if not guest.running:
                continue
            host = self.hosts[uuid]
            if guest.name in names:
                raise NotTrue(f"{guest.name} runs on {names[guest.name]} and on {uuid}")
            names[guest.name] = uuid
            missing = set(guest.networks) - host.bridges
            if missing:
                raise NotTrue(f"{guest.name} runs on {uuid} without bridges {sorted(map(str, missing))}")
            for nic in guest.spec.nics:
                if macs.setdefault((nic.network, nic.mac), guest.name) != guest.name:
                    raise NotTrue(f"{nic.mac} is given to {guest.name} and to {macs[nic.network, nic.mac]}")
            if isinstance(guest.spec, VmSpec):
                for disk in guest.spec.disks:
                    key = (disk.pool.uuid, disk.volume)
                    if disk.volume not in self.pool(disk.pool.uuid).volumes:
                        raise NotTrue(f"{guest.name} runs on {uuid} without its volume {disk.volume}")
                    if disks.setdefault(key, guest.name) != guest.name:
                        raise NotTrue(f"volume {disk.volume} is used by {guest.name} and by {disks[key]}")
        for uuid, host in self.hosts.items():
            if host.memory_free_bytes < 0:
                raise NotTrue(f"{uuid} gave away {-host.memory_free_bytes} bytes it does not have")

    def assert_nothing_left(self) -> None:
        """No guest, router, bridge or volume anywhere; templates may stay. Raises `NotTrue`."""
        guests = [f"{guest.name}@{uuid}" for uuid, guest in self.guests()]
        left = {"guests": guests, "bridges": sorted(map(str, self.bridges())), "volumes": sorted(self.volumes())}
        if any(left.values()):
            raise NotTrue(f"left behind: { {kind: what for kind, what in left.items() if what} }")

    def assert_bridges_used(self) -> None:
        """No host holds a bridge that no guest or router on it uses. Raises `NotTrue`."""
        for uuid, host in self.hosts.items():
            used = {network for guest in host.guests.values() for network in guest.networks}
            if host.bridges - used:
                raise NotTrue(f"{uuid} holds unused bridges {sorted(map(str, host.bridges - used))}")
