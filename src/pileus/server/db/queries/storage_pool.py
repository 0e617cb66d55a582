"""Primary storage pools."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, select, update

from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.host import host, storage_pool, storage_pool_host, storage_pool_tag
from pileus.server.db.tables.template import template_on_pool
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx


def by_id(tx: Tx, pool_id: int) -> RowMapping:
    """The pool, removed or not."""
    row = tx.one(select(storage_pool).where(storage_pool.c.id == pool_id))
    if row is None:
        raise LookupError(f"storage pool {pool_id}")
    return row


def of_cluster(tx: Tx, cluster_id: int) -> list[RowMapping]:
    """Live pools of a cluster."""
    return tx.all(select(storage_pool).where(storage_pool.c.live == 1, storage_pool.c.cluster_id == cluster_id))


def add(tx: Tx, tags: list[str], **values: Any) -> int:
    """Insert a pool with its tags."""
    pool_id = tx.insert(insert(storage_pool).values(created_at=tx.now, **values))
    if tags:
        tx.execute(insert(storage_pool_tag), [{"pool_id": pool_id, "tag": tag} for tag in sorted(set(tags))])
    return pool_id


def change(tx: Tx, pool_id: int, **values: Any) -> None:
    """Set columns of a pool."""
    tx.execute(update(storage_pool).where(storage_pool.c.id == pool_id).values(**values))


def mark_attached(tx: Tx, pool_id: int, host_id: int) -> None:
    """Remember that the host uses the pool."""
    here = (storage_pool_host.c.pool_id == pool_id, storage_pool_host.c.host_id == host_id)
    if tx.scalar(select(storage_pool_host.c.host_id).where(*here)) is None:
        tx.execute(insert(storage_pool_host).values(pool_id=pool_id, host_id=host_id, attached=1))
    else:
        tx.execute(update(storage_pool_host).where(*here).values(attached=1))


def mark_detached(tx: Tx, pool_id: int, host_id: int) -> None:
    """Remember that the host does not use the pool."""
    tx.execute(
        delete(storage_pool_host).where(storage_pool_host.c.pool_id == pool_id, storage_pool_host.c.host_id == host_id)
    )


def hosts_up(tx: Tx, cluster_id: int) -> list[int]:
    """Keys of the cluster's hosts that are up."""
    return list(
        tx.execute(
            select(host.c.id).where(
                host.c.live == 1, host.c.cluster_id == cluster_id, host.c.state == "Up", host.c.kind == "Routing"
            )
        ).scalars()
    )


def attached_hosts(tx: Tx, pool_id: int) -> list[int]:
    """Keys of the hosts that use the pool."""
    return list(tx.execute(select(storage_pool_host.c.host_id).where(storage_pool_host.c.pool_id == pool_id)).scalars())


def volumes_on(tx: Tx, pool_id: int) -> int:
    """How many volumes lie on the pool."""
    return int(
        tx.scalar(select(func.count()).select_from(volume).where(volume.c.live == 1, volume.c.pool_id == pool_id))
    )


def templates_on(tx: Tx, pool_id: int) -> list[RowMapping]:
    """Copies of templates on the pool."""
    return tx.all(select(template_on_pool).where(template_on_pool.c.pool_id == pool_id))


def forget(tx: Tx, pool_id: int) -> None:
    """Take a pool out of use."""
    change(tx, pool_id, live=None, removed_at=tx.now)
    tx.execute(delete(template_on_pool).where(template_on_pool.c.pool_id == pool_id))
    tx.execute(delete(storage_pool_host).where(storage_pool_host.c.pool_id == pool_id))


def same_place(tx: Tx, *, kind: str, server: str, path: str) -> RowMapping | None:
    """A live pool at the same address."""
    return tx.one(
        select(storage_pool)
        .where(
            storage_pool.c.live == 1,
            storage_pool.c.kind == kind,
            storage_pool.c.server == server,
            storage_pool.c.path == path,
        )
        .limit(1)
    )


def matching(
    tx: Tx, equal: dict[str, Any], *, keyword: str | None, offset: int, limit: int
) -> tuple[list[RowMapping], int]:
    """One page of pools; `equal` maps columns to wanted values, None for any."""
    where: list[ColumnElement[bool]] = [storage_pool.c.live == 1]
    where += [storage_pool.c[name] == value for name, value in equal.items() if value is not None]
    if keyword:
        where.append(like(storage_pool.c.name, keyword))
    return page(tx, storage_pool, where, offset=offset, limit=limit)
