"""How much of everything a cloud has and uses, from the counters that claims guard: a fixed number of queries."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, case, func, select

from pileus.server.db.tables.host import host, host_capacity, host_stats, storage_pool
from pileus.server.db.tables.network import pod_ip, public_ip, vlan_ip_range
from pileus.server.db.tables.place import pod, zone, zone_vnet
from pileus.server.db.transaction import Tx
from pileus.server.domain.capacity import Capacity, CapacityType
from pileus.server.domain.host import HostState
from pileus.server.domain.network import IpState
from pileus.server.domain.storage import PoolState
from pileus.wire.messages import HostKind

_MIB = 1 << 20


def everywhere(tx: Tx, *, host_id: int | None = None) -> list[Capacity]:
    """All of it, in the smallest places there are; with `host_id` only what that host has."""
    found = list(_hosts(tx, host_id))
    if host_id is None:
        found += [*_pools(tx), *_public(tx), *_private(tx), *_secondary(tx), *_vlans(tx)]
    return found


def _hosts(tx: Tx, host_id: int | None) -> Iterator[Capacity]:
    """CPU and memory of hosts that are not given up."""
    place = (host.c.zone_id, host.c.pod_id, host.c.cluster_id)
    where: list[ColumnElement[bool]] = [
        host.c.live == 1,
        host.c.kind == str(HostKind.ROUTING),
        host.c.state.not_in([str(HostState.DOWN), str(HostState.REMOVED)]),
    ]
    if host_id is not None:
        where.append(host.c.id == host_id)
    rows = tx.all(
        select(
            *place,
            _sum(host_capacity.c.cpu_used_mhz, "cpu_used"),
            _sum(host_capacity.c.cpu_total_mhz, "cpu_total"),
            _sum(host_capacity.c.ram_used_mib, "ram_used"),
            _sum(host_capacity.c.ram_total_mib, "ram_total"),
        )
        .join(host_capacity, host_capacity.c.host_id == host.c.id)
        .where(*where)
        .group_by(*place)
    )
    for row in rows:
        yield _of(CapacityType.CPU, row, int(row["cpu_used"]), int(row["cpu_total"]))
        yield _of(CapacityType.MEMORY, row, int(row["ram_used"]) * _MIB, int(row["ram_total"]) * _MIB)


def _pools(tx: Tx) -> Iterator[Capacity]:
    place = (storage_pool.c.zone_id, storage_pool.c.pod_id, storage_pool.c.cluster_id)
    rows = tx.all(
        select(
            *place,
            _sum(storage_pool.c.capacity_bytes - storage_pool.c.available_bytes, "used"),
            _sum(storage_pool.c.capacity_bytes, "total"),
            _sum(storage_pool.c.allocated_bytes, "allocated"),
            _sum(storage_pool.c.allocatable_bytes, "allocatable"),
        )
        .where(storage_pool.c.live == 1, storage_pool.c.state != str(PoolState.REMOVED))
        .group_by(*place)
    )
    for row in rows:
        yield _of(CapacityType.STORAGE, row, int(row["used"]), int(row["total"]))
        yield _of(CapacityType.STORAGE_ALLOCATED, row, int(row["allocated"]), int(row["allocatable"]))


def _public(tx: Tx) -> Iterator[Capacity]:
    rows = tx.all(
        select(
            public_ip.c.zone_id,
            vlan_ip_range.c.for_virtual_network.label("virtual"),
            _sum(case((public_ip.c.state == str(IpState.FREE), 0), else_=1), "used"),
            func.count().label("total"),
        )
        .join(vlan_ip_range, vlan_ip_range.c.id == public_ip.c.range_id)
        .where(public_ip.c.live == 1)
        .group_by(public_ip.c.zone_id, vlan_ip_range.c.for_virtual_network)
    )
    for row in rows:
        kind = CapacityType.PUBLIC_IP if row["virtual"] else CapacityType.DIRECT_PUBLIC_IP
        yield _of(kind, row, int(row["used"]), int(row["total"]))


def _private(tx: Tx) -> Iterator[Capacity]:
    rows = tx.all(
        select(
            pod.c.zone_id,
            pod_ip.c.pod_id,
            func.count(pod_ip.c.vm_id).label("used"),
            func.count().label("total"),
        )
        .join(pod, pod.c.id == pod_ip.c.pod_id)
        .where(pod.c.live == 1)
        .group_by(pod.c.zone_id, pod_ip.c.pod_id)
    )
    for row in rows:
        yield _of(CapacityType.PRIVATE_IP, row, int(row["used"]), int(row["total"]))


def _secondary(tx: Tx) -> Iterator[Capacity]:
    rows = tx.all(
        select(
            host.c.zone_id,
            _sum(host_stats.c.storage_used_bytes, "used"),
            _sum(host_stats.c.storage_total_bytes, "total"),
        )
        .join(host_stats, host_stats.c.host_id == host.c.id)
        .where(host.c.live == 1, host.c.kind == str(HostKind.SECONDARY_STORAGE))
        .group_by(host.c.zone_id)
    )
    for row in rows:
        yield _of(CapacityType.SECONDARY_STORAGE, row, int(row["used"]), int(row["total"]))


def _vlans(tx: Tx) -> Iterator[Capacity]:
    rows = tx.all(
        select(
            zone_vnet.c.zone_id,
            func.count(zone_vnet.c.network_id).label("used"),
            func.count().label("total"),
        )
        .join(zone, zone.c.id == zone_vnet.c.zone_id)
        .where(zone.c.live == 1)
        .group_by(zone_vnet.c.zone_id)
    )
    for row in rows:
        yield _of(CapacityType.VLAN, row, int(row["used"]), int(row["total"]))


def _sum(expression: Any, name: str) -> Any:
    return func.coalesce(func.sum(expression), 0).label(name)


def _of(kind: CapacityType, row: RowMapping, used: int, total: int) -> Capacity:
    return Capacity(kind, row["zone_id"], row.get("pod_id"), row.get("cluster_id"), used, total)
