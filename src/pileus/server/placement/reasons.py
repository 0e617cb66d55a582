"""Why a host does not take a demand: one reason for each host, the first that holds in one fixed order.

A reason is a number while hosts are searched; words are found for those that are told. What is told to users of the
cloud names no host, no pool and no numbers of its infrastructure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from pileus.server.domain.host import HostState
from pileus.server.domain.storage import PoolState
from pileus.server.placement.demand import Demand, DiskDemand
from pileus.server.placement.facts import Cloud, HostFacts, PoolFacts

_GIB = 1 << 30


class Reason(IntEnum):
    """The higher one is told first."""

    FITS = 0
    ALLOCATOR = 1
    TOGETHER = 2
    POOLS = 3
    NO_POOL = 4
    MEMORY = 5
    CPU = 6
    NO_CAPACITY = 7
    CPU_SPEED = 8
    CPUS = 9
    TAG = 10
    POD = 11
    HYPERVISOR = 12
    CLOSED = 13
    STATE = 14
    NOT_ASKED_FOR = 15
    AVOIDED = 16


REASONS = tuple(Reason)
"""By number."""


@dataclass
class Question:
    """A demand with all that bears on where it goes. `avoid` is a job's avoid-set ("host:7", "pool:3" → reason).

    `refused_hosts` and `refused_pools` (by volume and pool) hold what allocators said of those that have room.
    """

    demand: Demand
    avoid: Mapping[str, str] = field(default_factory=dict)
    seed: str = ""
    refused_hosts: dict[int, str] = field(default_factory=dict)
    refused_pools: dict[tuple[int, int], str] = field(default_factory=dict)
    said_of_pools: dict[tuple[int, tuple[int, ...]], str] = field(default_factory=dict)
    """Words on the storage of hosts that are told already: hosts of one cluster with the same pools have the same."""

    def __post_init__(self) -> None:
        self.avoid_hosts = _keys(self.avoid, "host:")
        self.avoid_pools = _keys(self.avoid, "pool:")
        self.new_disks = tuple(disk for disk in self.demand.disks if disk.pool_id is None)


def of_host(cloud: Cloud, host: HostFacts, question: Question) -> Reason:
    """Why the host itself does not take the demand, its storage aside."""
    demand = question.demand
    if host.id in question.avoid_hosts:
        return Reason.AVOIDED
    if demand.host_id is not None and host.id != demand.host_id:
        return Reason.NOT_ASKED_FOR
    standing = standing_of(cloud, host, any_allocation_state=demand.any_allocation_state)
    if standing > Reason.NO_CAPACITY:
        return standing
    if demand.hypervisor is not None and host.hypervisor != demand.hypervisor:
        return Reason.HYPERVISOR
    if demand.pod_id is not None and host.pod_id != demand.pod_id:
        return Reason.POD
    if demand.host_tag is not None and demand.host_tag not in host.tags:
        return Reason.TAG
    if host.cpus < demand.cpus:
        return Reason.CPUS
    if host.cpu_mhz < demand.cpu_mhz:
        return Reason.CPU_SPEED
    if standing:
        return standing
    if host.free_mhz < demand.claim_mhz:
        return Reason.CPU
    return Reason.MEMORY if host.free_mib < demand.ram_mib else Reason.FITS


def standing_of(cloud: Cloud, host: HostFacts, *, any_allocation_state: bool) -> Reason:
    """What is wrong with the host for every demand."""
    if host.state != HostState.UP:
        return Reason.STATE
    if not any_allocation_state and cloud.closed(host) is not None:
        return Reason.CLOSED
    return Reason.NO_CAPACITY if host.cpu_total_mhz is None else Reason.FITS


def of_pool(pool: PoolFacts, disk: DiskDemand, question: Question) -> str | None:
    """Why a pool that the host has attached does not take the disk, None when it does."""
    if pool.state != PoolState.UP:
        return f"pool {pool.name} is {pool.state}"
    if disk.pool_id is not None:
        return None if disk.pool_id == pool.id else f"the volume is not on pool {pool.name}"
    if pool.id in question.avoid_pools:
        return f"pool {pool.name}: {question.avoid[f'pool:{pool.id}']}"
    if not disk.tags <= pool.tags:
        return f"pool {pool.name} lacks tags {', '.join(sorted(disk.tags - pool.tags))}"
    if pool.free_bytes < disk.size_bytes:
        free = max(pool.free_bytes, 0) / _GIB
        return f"pool {pool.name} has {free:.1f} GiB free, {disk.size_bytes / _GIB:.1f} needed"
    said = question.refused_pools.get((disk.volume_id, pool.id))
    return None if said is None else f"pool {pool.name}: {said}"


def told(reason: Reason, cloud: Cloud, host: HostFacts, question: Question) -> str:
    """The reason in words, for administrators."""
    demand = question.demand
    match reason:
        case Reason.AVOIDED:
            return question.avoid[f"host:{host.id}"]
        case Reason.STATE:
            return f"it is {host.state}"
        case Reason.CLOSED:
            return f"{cloud.closed(host)} is disabled for new guests"
        case Reason.HYPERVISOR:
            return f"its hypervisor is {host.hypervisor}, not {demand.hypervisor}"
        case Reason.TAG:
            return f"it has no tag {demand.host_tag}"
        case Reason.CPUS:
            return f"it has {host.cpus} CPUs, {demand.cpus} are needed"
        case Reason.CPU_SPEED:
            return f"its CPUs have {host.cpu_mhz} MHz, {demand.cpu_mhz} are needed"
        case Reason.CPU:
            return f"not enough CPU ({host.free_mhz} of {host.cpu_total_mhz} MHz free, {demand.claim_mhz} needed)"
        case Reason.MEMORY:
            return f"not enough memory ({host.free_mib} of {host.ram_total_mib} MiB free, {demand.ram_mib} needed)"
        case Reason.POOLS:
            group = (host.cluster_id, host.pools)
            if group not in question.said_of_pools:
                question.said_of_pools[group] = _of_pools(cloud, host, question)
            return question.said_of_pools[group]
        case Reason.TOGETHER:
            whole = sum(disk.size_bytes for disk in question.new_disks)
            return f"its storage has no room for {whole / _GIB:.1f} GiB in all"
        case Reason.ALLOCATOR:
            return question.refused_hosts[host.id]
    return _FIXED[reason]


_FIXED: Mapping[Reason, str] = {
    Reason.NOT_ASKED_FOR: "another host was asked for",
    Reason.POD: "it is in another pod",
    Reason.NO_CAPACITY: "its capacity is not known yet",
    Reason.NO_POOL: "its cluster has no primary storage",
}

OF_KIND: Mapping[Reason, str] = {
    Reason.AVOIDED: "was tried without success",
    Reason.NOT_ASKED_FOR: "is not the one asked for",
    Reason.STATE: "is not up",
    Reason.CLOSED: "is disabled for new guests",
    Reason.HYPERVISOR: "has another hypervisor",
    Reason.POD: "is in another pod",
    Reason.TAG: "lacks the tag",
    Reason.CPUS: "has too few CPUs",
    Reason.CPU_SPEED: "has CPUs that are too slow",
    Reason.NO_CAPACITY: "has not told its capacity yet",
    Reason.CPU: "has not enough CPU free",
    Reason.MEMORY: "has not enough memory free",
    Reason.NO_POOL: "has no primary storage",
    Reason.POOLS: "has no storage for the disks",
    Reason.TOGETHER: "has no storage for all disks together",
    Reason.ALLOCATOR: "was refused by an allocator",
}
"""What is said of many hosts at once."""

_UNAVAILABLE = "the capacity there is cannot be used at this moment"
_NO_STORAGE = "there is not enough primary storage of the kind that its disks need"

FOR_USERS: Mapping[Reason, str] = {
    Reason.AVOIDED: _UNAVAILABLE,
    Reason.NOT_ASKED_FOR: _UNAVAILABLE,
    Reason.STATE: _UNAVAILABLE,
    Reason.CLOSED: _UNAVAILABLE,
    Reason.POD: _UNAVAILABLE,
    Reason.NO_CAPACITY: _UNAVAILABLE,
    Reason.ALLOCATOR: _UNAVAILABLE,
    Reason.HYPERVISOR: "the hypervisor of the template is not offered with enough room",
    Reason.TAG: "the service offering asks for special hosts that have no room",
    Reason.CPUS: "the service offering has more CPUs than one host with room has",
    Reason.CPU_SPEED: "the service offering asks for faster CPUs than one host with room has",
    Reason.CPU: "there is not enough free CPU on one host",
    Reason.MEMORY: "there is not enough free memory on one host",
    Reason.NO_POOL: _NO_STORAGE,
    Reason.POOLS: _NO_STORAGE,
    Reason.TOGETHER: _NO_STORAGE,
}


def _of_pools(cloud: Cloud, host: HostFacts, question: Question) -> str:
    pools = [cloud.pools[pool_id] for pool_id in cloud.pools_of_cluster.get(host.cluster_id, ())]
    for disk in question.demand.disks:
        said = [
            of_pool(pool, disk, question)
            if pool.id in host.pools or pool.state != PoolState.UP
            else f"pool {pool.name} is not attached to it"
            for pool in pools
        ]
        if None not in said:
            return "no storage: " + ", ".join(text for text in said if text)
    return "no storage"


def _keys(avoid: Mapping[str, str], prefix: str) -> frozenset[int]:
    return frozenset(int(key.removeprefix(prefix)) for key in avoid if key.startswith(prefix))
