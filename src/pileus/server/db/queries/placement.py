"""What placement reads: hosts, pools and what has changed of them. `only` None reads all; keys go in portions."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Column, Integer, Select, bindparam, func, or_, select

from pileus.server.db.changes import Change
from pileus.server.db.prepared import Prepared
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

Only = Collection[int] | None

Fields = tuple[Any, ...]
"""A row, column by column."""


class _Portions:
    """A statement that is run for all keys, or for some hundreds at a time."""

    def __init__(self, wanted: Select[Any], key: Column[Any]) -> None:
        self._all = Prepared(wanted.order_by(key))
        self._some = Prepared(wanted.where(key.in_(bindparam("only", expanding=True))).order_by(key))

    def __call__(self, tx: Tx, only: Only) -> Iterator[Fields]:
        if only is None:
            yield from self._all.tuples(tx)
            return
        keys = sorted(only)
        for begin in range(0, len(keys), PORTION):
            yield from self._some.tuples(tx, only=keys[begin : begin + PORTION])


_LOG = select(row_change.c.id, row_change.c.subject, row_change.c.row_id).order_by(row_change.c.id)

_NEW = row_change.c.id >= bindparam("since")

_MOST = bindparam("most", type_=Integer)

_NEWS = Prepared(_LOG.where(_NEW).limit(_MOST))

_NEWS_AND_MISSING = Prepared(
    _LOG.where(or_(_NEW, row_change.c.id.in_(bindparam("missing", expanding=True)))).limit(_MOST)
)


class Logged(NamedTuple):
    """An entry of the log of changed rows."""

    number: int
    change: Change


def hosts(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Routing hosts in use with their capacity, columns in the order of `placement.facts.HostFacts`."""
    return _HOSTS(tx, only)


_HOSTS = _Portions(
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
    .where(host.c.live == 1, host.c.kind == str(HostKind.ROUTING), host.c.cluster_id.is_not(None)),
    host.c.id,
)


def room(tx: Tx, only: Collection[int]) -> Iterator[Fields]:
    """Host, and its total and used CPU, total and used memory, as in `placement.facts.HostFacts`."""
    return _ROOM(tx, only)


_ROOM = _Portions(
    select(
        host_capacity.c.host_id,
        host_capacity.c.cpu_total_mhz,
        host_capacity.c.cpu_used_mhz,
        host_capacity.c.ram_total_mib,
        host_capacity.c.ram_used_mib,
    ),
    host_capacity.c.host_id,
)


def host_tags(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Host and tag."""
    return _HOST_TAGS(tx, only)


_HOST_TAGS = _Portions(select(host_tag.c.host_id, host_tag.c.tag), host_tag.c.host_id)


def attachments(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Host and a pool that it has attached."""
    return _ATTACHMENTS(tx, only)


_USES = select(storage_pool_host.c.host_id, storage_pool_host.c.pool_id).where(storage_pool_host.c.attached == 1)

_ATTACHMENTS = _Portions(_USES, storage_pool_host.c.host_id)


def users_of(tx: Tx, pool_ids: Collection[int]) -> set[int]:
    """Hosts that have one of the pools attached."""
    return {row[0] for row in _USERS(tx, pool_ids)}


_USERS = _Portions(_USES, storage_pool_host.c.pool_id)


def pools(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Pools in use, columns in the order of `placement.facts.PoolFacts`."""
    return _POOLS(tx, only)


_POOLS = _Portions(
    select(
        storage_pool.c.id,
        storage_pool.c.uuid,
        storage_pool.c.name,
        storage_pool.c.zone_id,
        storage_pool.c.cluster_id,
        storage_pool.c.state,
        storage_pool.c.allocatable_bytes,
        storage_pool.c.allocated_bytes,
    ).where(storage_pool.c.live == 1, storage_pool.c.cluster_id.is_not(None)),
    storage_pool.c.id,
)


def pool_tags(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Pool and tag."""
    return _POOL_TAGS(tx, only)


_POOL_TAGS = _Portions(select(storage_pool_tag.c.pool_id, storage_pool_tag.c.tag), storage_pool_tag.c.pool_id)


def pods(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Pod and its allocation state."""
    return _PODS(tx, only)


_PODS = _Portions(select(pod.c.id, pod.c.allocation_state), pod.c.id)


def clusters(tx: Tx, only: Only = None) -> Iterator[Fields]:
    """Cluster and its allocation state."""
    return _CLUSTERS(tx, only)


_CLUSTERS = _Portions(select(cluster.c.id, cluster.c.allocation_state), cluster.c.id)


def os_types(tx: Tx) -> Iterator[Fields]:
    """OS type and its category."""
    return _OS_TYPES(tx, None)


_OS_TYPES = _Portions(select(os_type.c.id, os_type.c.category_id), os_type.c.id)


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
    if missing:
        found = _NEWS_AND_MISSING.tuples(tx, since=since, missing=sorted(missing), most=limit)
    else:
        found = _NEWS.tuples(tx, since=since, most=limit)
    return [Logged(int(row[0]), (str(row[1]), int(row[2]))) for row in found]
