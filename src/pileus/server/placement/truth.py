"""What the database itself says of a demand: how many hosts have room for it, disk by disk, and the sum of their keys.

The view is asked the same. Equal answers mean that the view has missed nothing that matters to this demand.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, func, select

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
from pileus.server.placement.facts import Cloud
from pileus.server.placement.reasons import Question, Reason
from pileus.server.placement.search import search
from pileus.wire.messages import HostKind


class Sum(NamedTuple):
    """Hosts with room, and the sum of their keys."""

    hosts: int
    keys: int


def seen(cloud: Cloud, demand: Demand, avoid: Mapping[str, str]) -> Sum:
    """What the view says. Allocators, and whether all disks find room together, are beyond the database."""
    found = [each.id for each, reason in search(cloud, Question(demand, avoid)).judged(at_most=Reason.TOGETHER)]
    return Sum(len(found), sum(found))


def there(tx: Tx, demand: Demand, avoid: Mapping[str, str]) -> Sum:
    """What the database says, in one query."""
    question = Question(demand, avoid)
    joined = (
        host.join(host_capacity, host_capacity.c.host_id == host.c.id)
        .join(cluster, cluster.c.id == host.c.cluster_id)
        .join(pod, pod.c.id == host.c.pod_id)
    )
    where = _where(demand, question.avoid_hosts, question.avoid_pools)
    wanted = select(func.count(), func.coalesce(func.sum(host.c.id), 0)).select_from(joined).where(*where)
    row: Sequence[Any] = tx.execute(wanted).one()
    return Sum(int(row[0]), int(row[1]))


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
    disk: DiskDemand, avoid: Collection[int], host_id: Column[Any], cluster_id: Column[Any]
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
