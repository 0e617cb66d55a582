"""Primary storage pools."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, bindparam, delete, func, insert, select

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.host import host, storage_pool, storage_pool_host, storage_pool_tag
from pileus.server.db.tables.job import job
from pileus.server.db.tables.template import template_on_pool
from pileus.server.db.tables.vm import vm_incarnation
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.job import Phase


def by_id(tx: Tx, pool_id: int) -> RowMapping:
    """The pool, removed or not."""
    row = rows.one(tx, storage_pool, id=pool_id)
    if row is None:
        raise LookupError(f"storage pool {pool_id}")
    return row


def of_cluster(tx: Tx, cluster_id: int) -> list[RowMapping]:
    """Live pools of a cluster."""
    return tx.all(select(storage_pool).where(storage_pool.c.live == 1, storage_pool.c.cluster_id == cluster_id))


def of_clusters(tx: Tx, cluster_ids: Collection[int]) -> dict[int, list[RowMapping]]:
    """Live pools by cluster."""
    if not cluster_ids:
        return {}
    found: dict[int, list[RowMapping]] = {}
    for row in _OF_CLUSTERS.all(tx, cluster_ids=cluster_ids):
        found.setdefault(row["cluster_id"], []).append(row)
    return found


_OF_CLUSTERS = Prepared(
    select(storage_pool).where(
        storage_pool.c.live == 1, storage_pool.c.cluster_id.in_(bindparam("cluster_ids", expanding=True))
    )
)


def is_attached(tx: Tx, pool_id: int, host_id: int) -> bool:
    """Whether the host has said that the pool is attached."""
    link = select(storage_pool_host.c.attached).where(
        storage_pool_host.c.pool_id == pool_id, storage_pool_host.c.host_id == host_id
    )
    return bool(tx.scalar(link))


def add(tx: Tx, tags: list[str], **values: Any) -> int:
    """Insert a pool with its tags."""
    pool_id = tx.insert(insert(storage_pool).values(created_at=tx.now, **values))
    if tags:
        tx.execute(insert(storage_pool_tag), [{"pool_id": pool_id, "tag": tag} for tag in sorted(set(tags))])
    return pool_id


def change(tx: Tx, pool_id: int, **values: Any) -> None:
    """Set columns of a pool."""
    rows.change(tx, storage_pool, {"id": pool_id}, **values)


def expect(tx: Tx, pool_id: int, host_id: int) -> None:
    """Remember that the host is asked to use the pool: from now on it may."""
    if rows.one(tx, storage_pool_host, pool_id=pool_id, host_id=host_id) is None:
        tx.execute(insert(storage_pool_host).values(pool_id=pool_id, host_id=host_id, attached=0))


def set_attached(tx: Tx, pool_id: int, host_id: int, *, attached: bool) -> None:
    """Say whether the host's use of the pool can be relied on."""
    rows.change(tx, storage_pool_host, {"pool_id": pool_id, "host_id": host_id}, attached=int(attached))


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


def hosts_of(tx: Tx, pool_id: int) -> list[int]:
    """Keys of the hosts that use the pool or may, those that are up first."""
    found = tx.all(
        select(host.c.id, host.c.state)
        .join(storage_pool_host, storage_pool_host.c.host_id == host.c.id)
        .where(storage_pool_host.c.pool_id == pool_id)
        .order_by(host.c.id)
    )
    return [row["id"] for row in sorted(found, key=lambda row: row["state"] != "Up")]


def unattached(tx: Tx) -> list[tuple[int, int]]:
    """Pool and host keys: hosts that are up and cannot rely on a pool of their cluster."""
    found = tx.all(
        select(storage_pool.c.id.label("pool_id"), host.c.id.label("host_id"))
        .join(host, host.c.cluster_id == storage_pool.c.cluster_id)
        .outerjoin(
            storage_pool_host,
            (storage_pool_host.c.pool_id == storage_pool.c.id)
            & (storage_pool_host.c.host_id == host.c.id)
            & (storage_pool_host.c.attached == 1),
        )
        .where(
            storage_pool.c.live == 1,
            host.c.live == 1,
            host.c.state == "Up",
            host.c.kind == "Routing",
            storage_pool_host.c.pool_id.is_(None),
        )
        .order_by(storage_pool.c.id, host.c.id)
    )
    return [(row["pool_id"], row["host_id"]) for row in found]


def removed_with_hosts(tx: Tx) -> list[int]:
    """Keys of removed pools that hosts have not let go of."""
    found = tx.all(
        select(storage_pool.c.id)
        .join(storage_pool_host, storage_pool_host.c.pool_id == storage_pool.c.id)
        .where(storage_pool.c.live.is_(None))
        .distinct()
    )
    return [row["id"] for row in found]


def has_open_job(tx: Tx, resource_key: str, *, queued_only: bool = False) -> bool:
    """Whether a job on this resource has not ended; `queued_only`, one that has not begun."""
    return (_QUEUED if queued_only else _OPEN).scalar(tx, the_key=resource_key) is not None


_ON_KEY = select(job.c.id).where(job.c.open == 1, job.c.resource_key == bindparam("the_key")).limit(1)

_OPEN, _QUEUED = Prepared(_ON_KEY), Prepared(_ON_KEY.where(job.c.phase == str(Phase.QUEUED)))


def volumes_on_host(tx: Tx, pool_id: int, host_id: int) -> int:
    """How many volumes on the pool belong to guests that live on the host."""
    return int(
        tx.scalar(
            select(func.count())
            .select_from(volume)
            .join(vm_incarnation, vm_incarnation.c.vm_id == volume.c.vm_id)
            .where(
                volume.c.live == 1,
                volume.c.pool_id == pool_id,
                vm_incarnation.c.current == 1,
                vm_incarnation.c.host_id == host_id,
            )
        )
    )


def volumes_on(tx: Tx, pool_id: int) -> int:
    """How many volumes lie on the pool."""
    return int(
        tx.scalar(select(func.count()).select_from(volume).where(volume.c.live == 1, volume.c.pool_id == pool_id))
    )


def templates_on(tx: Tx, pool_id: int) -> list[RowMapping]:
    """Copies of templates on the pool."""
    return tx.all(select(template_on_pool).where(template_on_pool.c.pool_id == pool_id))


def forget_copy(tx: Tx, pool_id: int, name: str) -> None:
    """A copy of a template is not on the pool."""
    tx.execute(delete(template_on_pool).where(template_on_pool.c.pool_id == pool_id, template_on_pool.c.name == name))


def forget(tx: Tx, pool_id: int) -> None:
    """Nothing is on a removed pool, and nobody uses it."""
    tx.execute(delete(template_on_pool).where(template_on_pool.c.pool_id == pool_id))
    tx.execute(delete(storage_pool_host).where(storage_pool_host.c.pool_id == pool_id))


def same_place(tx: Tx, *, kind: str, server: str, path: str) -> list[RowMapping]:
    """Live pools at the same address."""
    return tx.all(
        select(storage_pool).where(
            storage_pool.c.live == 1,
            storage_pool.c.kind == kind,
            storage_pool.c.server == server,
            storage_pool.c.path == path,
        )
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
