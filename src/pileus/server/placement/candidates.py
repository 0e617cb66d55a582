"""Hosts with room, a few at a time, by indexed SQL: the search never reads the whole cloud.

`firstfit` begins at the first host of the zone, `random` at a host drawn from the seed, and both go round once.
"""

import hashlib
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, ColumnElement, RowMapping, func, select

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

AT_ONCE = 8
"""How many hosts, and how many pools of a cluster, are read at once."""


class Order(StrEnum):
    """Values of the setting `vm.allocation.algorithm` that we know."""

    FIRSTFIT = "firstfit"
    RANDOM = "random"


def hosts(
    tx: Tx, demand: Demand, *, avoid_hosts: Collection[int], avoid_pools: Collection[int], order: Order, seed: str
) -> Iterator[RowMapping]:
    """Hosts (`id`, `cluster_id`, `pod_id`) that may take the demand, best first. Only a claim decides."""
    where = _where(demand, avoid_hosts, avoid_pools)
    if demand.rather is not None:
        yield from _page(tx, where, host.c.id == demand.rather, after=0)
    first = 0
    if order is Order.RANDOM:
        first = _start(tx, demand.zone_id, seed)
        yield from _pages(tx, where, host.c.id >= first)
        where = [*where, host.c.id < first]
    yield from _pages(tx, where, host.c.id > 0)


def pools(tx: Tx, candidate: RowMapping, disk: DiskDemand, *, avoid: Collection[int]) -> list[int]:
    """Pools that a candidate host uses and that may take the disk, in order of their age."""
    rows = tx.execute(
        select(storage_pool.c.id)
        .where(*_pool_where(disk, avoid, candidate["id"], candidate["cluster_id"]))
        .order_by(storage_pool.c.id)
        .limit(AT_ONCE)
    )
    return [int(pool_id) for pool_id in rows.scalars()]


def _pages(tx: Tx, where: list[ColumnElement[bool]], bound: ColumnElement[bool]) -> Iterator[RowMapping]:
    after = 0
    while rows := _page(tx, where, bound, after=after):
        yield from rows
        if len(rows) < AT_ONCE:
            return
        after = rows[-1]["id"]


def _page(tx: Tx, where: list[ColumnElement[bool]], bound: ColumnElement[bool], *, after: int) -> list[RowMapping]:
    joined = (
        host.join(host_capacity, host_capacity.c.host_id == host.c.id)
        .join(cluster, cluster.c.id == host.c.cluster_id)
        .join(pod, pod.c.id == host.c.pod_id)
    )
    return tx.all(
        select(host.c.id, host.c.cluster_id, host.c.pod_id)
        .select_from(joined)
        .where(*where, bound, host.c.id > after)
        .order_by(host.c.id)
        .limit(AT_ONCE)
    )


def _where(demand: Demand, avoid_hosts: Collection[int], avoid_pools: Collection[int]) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [
        host.c.live == 1,
        host.c.zone_id == demand.zone_id,
        host.c.kind == str(HostKind.ROUTING),
        host.c.state == str(HostState.UP),
        host.c.cpus >= demand.cpus,
        host.c.cpu_mhz >= demand.cpu_mhz,
        host_capacity.c.cpu_used_mhz + demand.claim_mhz <= host_capacity.c.cpu_total_mhz,
        host_capacity.c.ram_used_mib + demand.ram_mib <= host_capacity.c.ram_total_mib,
    ]
    if not demand.any_allocation_state:
        where += [table.c.allocation_state == str(AllocationState.ENABLED) for table in (host, cluster, pod)]
    if demand.hypervisor is not None:
        where.append(host.c.hypervisor == demand.hypervisor)
    if demand.host_id is not None:
        where.append(host.c.id == demand.host_id)
    if demand.pod_id is not None:
        where.append(host.c.pod_id == demand.pod_id)
    if avoid_hosts:
        where.append(host.c.id.not_in(sorted(avoid_hosts)))
    if demand.host_tag is not None:
        tagged = select(host_tag.c.host_id).where(host_tag.c.host_id == host.c.id, host_tag.c.tag == demand.host_tag)
        where.append(tagged.exists())
    where += [_storage(disk, avoid_pools) for disk in demand.disks]
    return where


def _storage(disk: DiskDemand, avoid: Collection[int]) -> ColumnElement[bool]:
    return select(storage_pool.c.id).where(*_pool_where(disk, avoid, host.c.id, host.c.cluster_id)).exists()


def _pool_where(
    disk: DiskDemand, avoid: Collection[int], host_id: Column[Any] | int, cluster_id: Column[Any] | int
) -> list[ColumnElement[bool]]:
    attached = select(storage_pool_host.c.pool_id).where(
        storage_pool_host.c.pool_id == storage_pool.c.id,
        storage_pool_host.c.host_id == host_id,
        storage_pool_host.c.attached == 1,
    )
    where: list[ColumnElement[bool]] = [
        storage_pool.c.live == 1,
        storage_pool.c.cluster_id == cluster_id,
        storage_pool.c.state == str(PoolState.UP),
        attached.exists(),
    ]
    if disk.pool_id is not None:
        return [*where, storage_pool.c.id == disk.pool_id]
    where.append(storage_pool.c.allocated_bytes + disk.size_bytes <= storage_pool.c.allocatable_bytes)
    if avoid:
        where.append(storage_pool.c.id.not_in(sorted(avoid)))
    where += [
        select(storage_pool_tag.c.pool_id)
        .where(storage_pool_tag.c.pool_id == storage_pool.c.id, storage_pool_tag.c.tag == tag)
        .exists()
        for tag in sorted(disk.tags)
    ]
    return where


def _start(tx: Tx, zone_id: int, seed: str) -> int:
    here = (host.c.live == 1, host.c.zone_id == zone_id, host.c.kind == str(HostKind.ROUTING))
    lowest = tx.scalar(select(func.min(host.c.id)).where(*here))
    highest = tx.scalar(select(func.max(host.c.id)).where(*here))
    if lowest is None or highest is None:
        return 0
    drawn = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    return int(lowest) + drawn % (int(highest) - int(lowest) + 1)
