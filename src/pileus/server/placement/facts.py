"""What placement knows of hosts and pools: plain values, the same for few hosts and for many, and for allocators."""

from bisect import insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pileus.server.domain.host import AllocationState
from pileus.server.placement.demand import Demand


class HostFacts(NamedTuple):
    """A routing host in use. CPU in MHz over all cores, as far as guests may claim it; `cpu_total_mhz` None while the
    host's capacity is not known. `tags` and `pools` (keys of the pools it has attached) are sorted.
    """

    id: int
    uuid: str
    name: str
    zone_id: int
    pod_id: int
    cluster_id: int
    hypervisor: str
    state: str
    allocation_state: str
    cpus: int
    cpu_mhz: int
    os_category_id: int | None
    cpu_total_mhz: int | None
    cpu_used_mhz: int
    ram_total_mib: int
    ram_used_mib: int
    tags: tuple[str, ...] = ()
    pools: tuple[int, ...] = ()

    @property
    def free_mhz(self) -> int:
        """CPU that may be claimed still; negative when over-provisioning was lowered."""
        return (self.cpu_total_mhz or 0) - self.cpu_used_mhz

    @property
    def free_mib(self) -> int:
        """Memory that may be claimed still."""
        return self.ram_total_mib - self.ram_used_mib


class PoolFacts(NamedTuple):
    """A primary storage pool in use."""

    id: int
    uuid: str
    name: str
    zone_id: int
    cluster_id: int
    state: str
    allocatable_bytes: int
    allocated_bytes: int
    tags: frozenset[str] = frozenset()

    @property
    def free_bytes(self) -> int:
        """Space that may be claimed still; negative when over-provisioning was lowered."""
        return self.allocatable_bytes - self.allocated_bytes


@dataclass
class Zone:
    """Hosts and pools of a zone by key. `membership` grows with every host that comes or goes.

    `columns` is the same in columns, made for a zone of many hosts by whoever searches it, and kept up to date here.
    """

    hosts: list[int] = field(default_factory=list)
    pools: set[int] = field(default_factory=set)
    membership: int = 0
    columns: Any = None
    last_turn: int = 0
    """The host that horizontal allocation took last."""
    known_turns: tuple[int, list[int]] = (-1, [])

    def turns(self, cloud: "Cloud") -> list[int]:
        """Keys of hosts in the order of horizontal allocation."""
        if self.known_turns[0] != self.membership:
            self.known_turns = self.membership, in_turns(cloud.hosts[host_id] for host_id in self.hosts)
        return self.known_turns[1]


@dataclass
class Cloud:
    """All hosts and pools in use, as of the last look at the database."""

    hosts: dict[int, HostFacts] = field(default_factory=dict)
    pools: dict[int, PoolFacts] = field(default_factory=dict)
    zones: dict[int, Zone] = field(default_factory=dict)
    pools_of_cluster: dict[int, list[int]] = field(default_factory=dict)
    closed_pods: set[int] = field(default_factory=set)
    """Pods that are disabled for new guests."""
    closed_clusters: set[int] = field(default_factory=set)
    os_categories: dict[int, int] = field(default_factory=dict)
    """The category of each OS type."""

    def zone(self, zone_id: int) -> Zone:
        """A zone, an empty one if nothing is known of it."""
        found = self.zones.get(zone_id)
        return self.zones.setdefault(zone_id, Zone()) if found is None else found

    def closed(self, host: HostFacts) -> str | None:
        """What is disabled for new guests: "it", "its cluster" or "its pod"."""
        if host.allocation_state != AllocationState.ENABLED:
            return "it"
        if host.cluster_id in self.closed_clusters:
            return "its cluster"
        return "its pod" if host.pod_id in self.closed_pods else None

    def category_of(self, demand: Demand) -> int | None:
        """The OS category of the guest, None when it is not known."""
        return None if demand.os_type_id is None else self.os_categories.get(demand.os_type_id)

    def put_host(self, host: HostFacts) -> None:
        """Learn a host as it is now."""
        before = self.hosts.get(host.id)
        if before == host:
            return
        self.hosts[host.id] = host
        zone = self.zone(host.zone_id)
        if before is None:
            # Keys grow: nearly always this is an append.
            insort(zone.hosts, host.id)
            zone.membership += 1
            zone.columns = None
        elif zone.columns is not None:
            zone.columns.host_changed(self, host)

    def drop_host(self, host_id: int) -> None:
        """A host that is no more."""
        host = self.hosts.pop(host_id, None)
        if host is not None:
            zone = self.zone(host.zone_id)
            zone.hosts.remove(host_id)
            zone.membership += 1
            zone.columns = None

    def put_pool(self, pool: PoolFacts) -> None:
        """Learn a pool as it is now."""
        before = self.pools.get(pool.id)
        if before == pool:
            return
        self.pools[pool.id] = pool
        zone = self.zone(pool.zone_id)
        if before is None:
            zone.pools.add(pool.id)
            insort(self.pools_of_cluster.setdefault(pool.cluster_id, []), pool.id)
            zone.columns = None
        elif zone.columns is not None:
            zone.columns.pool_changed(pool)

    def drop_pool(self, pool_id: int) -> None:
        """A pool that is no more."""
        pool = self.pools.pop(pool_id, None)
        if pool is not None:
            zone = self.zone(pool.zone_id)
            zone.pools.discard(pool_id)
            zone.columns = None
            self.pools_of_cluster[pool.cluster_id].remove(pool_id)

    def open_or_close(self, known: set[int], key: int, *, closed: bool) -> None:
        """A pod (`closed_pods`) or cluster (`closed_clusters`) is disabled for new guests from now on, or enabled."""
        if (key in known) == closed:
            return
        (known.add if closed else known.discard)(key)
        for host in self.hosts.values():
            if key == (host.pod_id if known is self.closed_pods else host.cluster_id):
                columns = self.zone(host.zone_id).columns
                if columns is not None:
                    columns.host_changed(self, host)


def in_turns(hosts: Iterable[HostFacts]) -> list[int]:
    """Keys of hosts in the order of horizontal allocation: pods take turns, in each its clusters, in each its hosts."""
    in_cluster: Counter[int] = Counter()
    of_pods = []
    for host in hosts:
        of_pods.append((in_cluster[host.cluster_id], host.cluster_id, host.id, host.pod_id))
        in_cluster[host.cluster_id] += 1
    in_pod: Counter[int] = Counter()
    of_zone = []
    for *_, host_id, pod_id in sorted(of_pods):
        of_zone.append((in_pod[pod_id], pod_id, host_id))
        in_pod[pod_id] += 1
    return [host_id for *_, host_id in sorted(of_zone)]
