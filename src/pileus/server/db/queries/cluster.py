"""Clusters."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping, func, insert, select, update

from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.host import host, storage_pool
from pileus.server.db.tables.place import cluster
from pileus.server.db.transaction import Tx


def by_id(tx: Tx, cluster_id: int) -> RowMapping:
    """The cluster, removed or not."""
    row = tx.one(select(cluster).where(cluster.c.id == cluster_id))
    if row is None:
        raise LookupError(f"cluster {cluster_id}")
    return row


def named(tx: Tx, pod_id: int, name: str) -> RowMapping | None:
    """The live cluster of this name in a pod."""
    return tx.one(select(cluster).where(cluster.c.pod_id == pod_id, cluster.c.name == name, cluster.c.live == 1))


def add(tx: Tx, **values: Any) -> int:
    """Insert a cluster."""
    return tx.insert(insert(cluster).values(created_at=tx.now, **values))


def change(tx: Tx, cluster_id: int, **values: Any) -> None:
    """Set columns of a cluster."""
    tx.execute(update(cluster).where(cluster.c.id == cluster_id).values(**values))


def users_of(tx: Tx, cluster_id: int) -> dict[str, int]:
    """How many live things still belong to the cluster."""
    counts = {
        name: int(tx.scalar(select(func.count()).select_from(t).where(t.c.live == 1, t.c.cluster_id == cluster_id)))
        for name, t in (("hosts", host), ("storage pools", storage_pool))
    }
    return {name: n for name, n in counts.items() if n}


def hypervisors(tx: Tx, zone_id: int | None) -> list[str]:
    """Hypervisor types of live clusters."""
    statement = select(cluster.c.hypervisor).where(cluster.c.live == 1).distinct()
    if zone_id is not None:
        statement = statement.where(cluster.c.zone_id == zone_id)
    return sorted(tx.execute(statement).scalars())


def matching(
    tx: Tx, equal: dict[str, Any], *, keyword: str | None, offset: int, limit: int
) -> tuple[list[RowMapping], int]:
    """One page of clusters; `equal` maps columns to wanted values, None for any."""
    where: list[ColumnElement[bool]] = [cluster.c.live == 1]
    where += [cluster.c[name] == value for name, value in equal.items() if value is not None]
    if keyword:
        where.append(like(cluster.c.name, keyword))
    return page(tx, cluster, where, offset=offset, limit=limit)
