"""Why no host takes a demand: one reason for each host. Computed only after a search has failed."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import RowMapping, select

from pileus.server.db.tables.host import (
    host,
    host_capacity,
    host_tag,
    storage_pool,
    storage_pool_host,
    storage_pool_tag,
)
from pileus.server.db.tables.place import cluster, pod
from pileus.server.db.transaction import Tx
from pileus.server.domain.host import AllocationState, HostState
from pileus.server.domain.storage import PoolState
from pileus.server.placement.demand import Demand, DiskDemand
from pileus.wire.messages import HostKind

AT_MOST = 200
"""Hosts named in one error; of more only the number is told."""

_GIB = 1 << 30


def explain(tx: Tx, demand: Demand, *, avoid: Mapping[str, str]) -> str:
    """A sentence that lists every routing host of the zone with its reason, those of the avoid-set included."""
    rows = _hosts(tx, demand.zone_id)
    if not rows:
        return f"no host has room for {demand.name}: the zone has no hosts"
    tags = _tags(tx, [row["id"] for row in rows]) if demand.host_tag is not None else {}
    storage = _Storage(tx, demand, avoid)
    told = [
        f"{row['name']}: {_reason(row, demand, avoid, tags.get(row['id'], set()), storage)}" for row in rows[:AT_MOST]
    ]
    if len(rows) > AT_MOST:
        told.append("and more hosts of this zone")
    return f"no host has room for {demand.name}: " + "; ".join(told)


def _hosts(tx: Tx, zone_id: int) -> list[RowMapping]:
    joined = (
        host.outerjoin(host_capacity, host_capacity.c.host_id == host.c.id)
        .outerjoin(cluster, cluster.c.id == host.c.cluster_id)
        .outerjoin(pod, pod.c.id == host.c.pod_id)
    )
    return tx.all(
        select(
            host,
            host_capacity.c.cpu_total_mhz,
            host_capacity.c.cpu_used_mhz,
            host_capacity.c.ram_total_mib,
            host_capacity.c.ram_used_mib,
            cluster.c.allocation_state.label("cluster_allocation"),
            pod.c.allocation_state.label("pod_allocation"),
        )
        .select_from(joined)
        .where(host.c.live == 1, host.c.zone_id == zone_id, host.c.kind == str(HostKind.ROUTING))
        .order_by(host.c.id)
        .limit(AT_MOST + 1)
    )


def _tags(tx: Tx, host_ids: list[int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for row in tx.all(select(host_tag).where(host_tag.c.host_id.in_(host_ids))):
        found.setdefault(row["host_id"], set()).add(row["tag"])
    return found


def _reason(row: RowMapping, demand: Demand, avoid: Mapping[str, str], tags: set[str], storage: "_Storage") -> str:
    tried = avoid.get(f"host:{row['id']}")
    if tried is not None:
        return tried
    if demand.host_id is not None and row["id"] != demand.host_id:
        return "another host was asked for"
    if row["state"] != HostState.UP:
        return f"it is {row['state']}"
    if not demand.any_allocation_state:
        for what, column in (
            ("it", "allocation_state"),
            ("its cluster", "cluster_allocation"),
            ("its pod", "pod_allocation"),
        ):
            if row[column] != AllocationState.ENABLED:
                return f"{what} is disabled for new guests"
    if demand.hypervisor is not None and row["hypervisor"] != demand.hypervisor:
        return f"its hypervisor is {row['hypervisor']}, not {demand.hypervisor}"
    if demand.pod_id is not None and row["pod_id"] != demand.pod_id:
        return "it is in another pod"
    if demand.host_tag is not None and demand.host_tag not in tags:
        return f"it has no tag {demand.host_tag}"
    return _room(row, demand) or storage.reason(row["id"], row["cluster_id"]) or "another guest took its room just now"


def _room(row: RowMapping, demand: Demand) -> str | None:
    if row["cpus"] < demand.cpus:
        return f"it has {row['cpus']} CPUs, {demand.cpus} are needed"
    if row["cpu_mhz"] < demand.cpu_mhz:
        return f"its CPUs have {row['cpu_mhz']} MHz, {demand.cpu_mhz} are needed"
    if row["cpu_total_mhz"] is None:
        return "its capacity is not known yet"
    free_mhz = row["cpu_total_mhz"] - row["cpu_used_mhz"]
    if free_mhz < demand.claim_mhz:
        return f"not enough CPU ({free_mhz} of {row['cpu_total_mhz']} MHz free, {demand.claim_mhz} needed)"
    free_mib = row["ram_total_mib"] - row["ram_used_mib"]
    if free_mib < demand.ram_mib:
        return f"not enough memory ({free_mib} of {row['ram_total_mib']} MiB free, {demand.ram_mib} needed)"
    return None


class _Storage:
    """Reasons of storage; what a cluster has is read once."""

    def __init__(self, tx: Tx, demand: Demand, avoid: Mapping[str, str]) -> None:
        self._tx = tx
        self._demand = demand
        self._avoid = avoid
        self._clusters: dict[int, list[_Pool]] = {}

    def reason(self, host_id: int, cluster_id: int) -> str | None:
        """Why the disks find no pool on this host, or None when each of them does."""
        if not self._demand.disks:
            return None
        if cluster_id not in self._clusters:
            self._clusters[cluster_id] = self._pools(cluster_id)
        pools = self._clusters[cluster_id]
        if not pools:
            return "its cluster has no primary storage"
        for disk in self._demand.disks:
            told = [self._refusal(pool, host_id, disk) for pool in pools]
            if None not in told:
                return "no storage: " + ", ".join(text for text in told if text)
        whole = sum(disk.size_bytes for disk in self._demand.disks if disk.pool_id is None)
        return f"its storage has no room for {whole / _GIB:.1f} GiB in all" if len(self._demand.disks) > 1 else None

    def _pools(self, cluster_id: int) -> list["_Pool"]:
        rows = self._tx.all(
            select(storage_pool)
            .where(storage_pool.c.live == 1, storage_pool.c.cluster_id == cluster_id)
            .order_by(storage_pool.c.id)
        )
        pools = {row["id"]: _Pool(row, set(), set()) for row in rows}
        for tag in self._tx.all(select(storage_pool_tag).where(storage_pool_tag.c.pool_id.in_(list(pools)))):
            pools[tag["pool_id"]].tags.add(tag["tag"])
        used = (storage_pool_host.c.pool_id.in_(list(pools)), storage_pool_host.c.attached == 1)
        for use in self._tx.all(select(storage_pool_host).where(*used)):
            pools[use["pool_id"]].hosts.add(use["host_id"])
        return list(pools.values())

    def _refusal(self, pool: "_Pool", host_id: int, disk: DiskDemand) -> str | None:
        row = pool.row
        name = row["name"]
        if row["state"] != PoolState.UP:
            return f"pool {name} is {row['state']}"
        if host_id not in pool.hosts:
            return f"pool {name} is not attached to it"
        if disk.pool_id is not None:
            return None if disk.pool_id == row["id"] else f"the volume is not on pool {name}"
        tried = self._avoid.get(f"pool:{row['id']}")
        if tried is not None:
            return f"pool {name}: {tried}"
        if not disk.tags <= pool.tags:
            return f"pool {name} lacks tags {', '.join(sorted(disk.tags - pool.tags))}"
        free = row["allocatable_bytes"] - row["allocated_bytes"]
        if free < disk.size_bytes:
            return f"pool {name} has {max(free, 0) / _GIB:.1f} GiB free, {disk.size_bytes / _GIB:.1f} needed"
        return None


@dataclass(frozen=True)
class _Pool:
    row: RowMapping
    tags: set[str]
    hosts: set[int]
