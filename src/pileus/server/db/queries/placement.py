"""What placement reads: hosts, pools and what has changed of them. `only` None reads all; keys go in portions."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Column, Select, bindparam, func, or_, select

from pileus.server.db.changes import Change
from pileus.server.db.tables.host import (
    host,
    host_capacity,
    host_tag,
    storage_pool,
    storage_pool_host,
    storage_pool_tag,
)
from pileus.server.db.tables.place import cluster, pod
from pileus.server.db.tables.row_change import row_change
from pileus.server.db.tables.template import os_type
from pileus.server.db.tables.vm import vm, vm_incarnation
from pileus.server.db.transaction import Tx
from pileus.wire.messages import HostKind

PORTION = 500
"""Keys in one IN list."""

# Statements of every decision are built once.
_ROOM = select(
    host_capacity.c.host_id,
    host_capacity.c.cpu_total_mhz,
    host_capacity.c.cpu_used_mhz,
    host_capacity.c.ram_total_mib,
    host_capacity.c.ram_used_mib,
).where(host_capacity.c.host_id.in_(bindparam("only", expanding=True)))

_POOLS = select(
    storage_pool.c.id,
    storage_pool.c.uuid,
    storage_pool.c.name,
    storage_pool.c.zone_id,
    storage_pool.c.cluster_id,
    storage_pool.c.state,
    storage_pool.c.allocatable_bytes,
    storage_pool.c.allocated_bytes,
).where(storage_pool.c.live == 1, storage_pool.c.cluster_id.is_not(None))

_SOME_POOLS = _POOLS.where(storage_pool.c.id.in_(bindparam("only", expanding=True))).order_by(storage_pool.c.id)

_LOG = select(row_change.c.id, row_change.c.subject, row_change.c.row_id).order_by(row_change.c.id)

_NEWS = _LOG.where(row_change.c.id >= bindparam("since"))

_NEWS_AND_MISSING = _LOG.where(
    or_(row_change.c.id >= bindparam("since"), row_change.c.id.in_(bindparam("missing", expanding=True)))
)

Only = Collection[int] | None

Fields = tuple[Any, ...]
"""A row, column by column."""


class Logged(NamedTuple):
    """An entry of the log of changed rows."""

    number: int
    change: Change


def hosts(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Routing hosts in use with their capacity, columns in the order of `placement.facts.HostFacts`."""
    wanted = (
        select(
            host.c.id,
            host.c.uuid,
            host.c.name,
            host.c.zone_id,
            host.c.pod_id,
            host.c.cluster_id,
            host.c.hypervisor,
            host.c.state,
            host.c.allocation_state,
            host.c.cpus,
            host.c.cpu_mhz,
            host.c.os_category_id,
            host_capacity.c.cpu_total_mhz,
            func.coalesce(host_capacity.c.cpu_used_mhz, 0),
            func.coalesce(host_capacity.c.ram_total_mib, 0),
            func.coalesce(host_capacity.c.ram_used_mib, 0),
        )
        .select_from(host.outerjoin(host_capacity, host_capacity.c.host_id == host.c.id))
        .where(host.c.live == 1, host.c.kind == str(HostKind.ROUTING), host.c.cluster_id.is_not(None))
    )
    return _in_portions(tx, wanted, host.c.id, only)


def room(tx: Tx, only: Collection[int]) -> Iterator[Fields]:
    """Host, and its total and used CPU, total and used memory, as in `placement.facts.HostFacts`."""
    return _portions_of(tx, _ROOM, only)


def host_tags(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Host and tag."""
    return _in_portions(tx, select(host_tag.c.host_id, host_tag.c.tag), host_tag.c.host_id, only)


def attachments(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Host and a pool that it has attached."""
    used = select(storage_pool_host.c.host_id, storage_pool_host.c.pool_id).where(storage_pool_host.c.attached == 1)
    return _in_portions(tx, used, storage_pool_host.c.host_id, only)


def users_of(tx: Tx, pool_ids: Collection[int]) -> set[int]:
    """Hosts that have one of the pools attached."""
    used = select(storage_pool_host.c.host_id).where(storage_pool_host.c.attached == 1)
    return {row[0] for row in _in_portions(tx, used, storage_pool_host.c.pool_id, pool_ids)}


def pools(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Pools in use, columns in the order of `placement.facts.PoolFacts`."""
    if only is None:
        return _in_portions(tx, _POOLS, storage_pool.c.id, None)
    return _portions_of(tx, _SOME_POOLS, only)


def pool_tags(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Pool and tag."""
    tags = select(storage_pool_tag.c.pool_id, storage_pool_tag.c.tag)
    return _in_portions(tx, tags, storage_pool_tag.c.pool_id, only)


def pods(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Pod and its allocation state."""
    return _in_portions(tx, select(pod.c.id, pod.c.allocation_state), pod.c.id, only)


def clusters(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Cluster and its allocation state."""
    return _in_portions(tx, select(cluster.c.id, cluster.c.allocation_state), cluster.c.id, only)


def os_types(tx: Tx) -> Iterator[Fields]:
    """OS type and its category."""
    return _in_portions(tx, select(os_type.c.id, os_type.c.category_id), os_type.c.id, None)


def guests_by_host(tx: Tx, account_id: int) -> dict[int, int]:
    """How many guests of an account live on each host that has any."""
    rows: Iterable[Any] = tx.execute(
        select(vm_incarnation.c.host_id, func.count())
        .join(vm, vm.c.id == vm_incarnation.c.vm_id)
        .where(vm.c.live == 1, vm.c.account_id == account_id, vm_incarnation.c.current == 1)
        .group_by(vm_incarnation.c.host_id)
    )
    return {int(row[0]): int(row[1]) for row in rows}


def newest_change(tx: Tx) -> int:
    """The last number of the log of changed rows, 0 for an empty one."""
    return int(tx.scalar(select(func.max(row_change.c.id))) or 0)


def logged(tx: Tx, *, since: int, missing: Collection[int] = (), limit: int) -> list[Logged]:
    """The log from entry `since` on, that one included, and those of the `missing` entries that are there by now."""
    wanted = _NEWS
    parameters: dict[str, Any] = {"since": since}
    if missing:
        wanted = _NEWS_AND_MISSING
        parameters["missing"] = sorted(missing)
    rows: Iterable[Any] = tx.execute(wanted.limit(limit), parameters)
    return [Logged(int(row[0]), (str(row[1]), int(row[2]))) for row in rows]


def _in_portions(tx: Tx, wanted: Select[Any], key: Column[Any], only: Only) -> Iterator[Fields]:
    if only is None:
        yield from tx.execute(wanted.order_by(key))
        return
    yield from _portions_of(tx, wanted.where(key.in_(bindparam("only", expanding=True))).order_by(key), only)


def _portions_of(tx: Tx, wanted: Select[Any], only: Collection[int]) -> Iterator[Fields]:
    keys = sorted(only)
    for begin in range(0, len(keys), PORTION):
        yield from tx.execute(wanted, {"only": keys[begin : begin + PORTION]})
