"""Pods and their private addresses."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, select, update

from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import pod_ip
from pileus.server.db.tables.place import cluster, pod
from pileus.server.db.transaction import Tx


def by_id(tx: Tx, pod_id: int) -> RowMapping:
    """The pod, removed or not."""
    row = tx.one(select(pod).where(pod.c.id == pod_id))
    if row is None:
        raise LookupError(f"pod {pod_id}")
    return row


def in_zone(tx: Tx, zone_id: int) -> list[RowMapping]:
    """All live pods of a zone."""
    return tx.all(select(pod).where(pod.c.live == 1, pod.c.zone_id == zone_id))


def all_live(tx: Tx) -> list[RowMapping]:
    """All live pods of the cloud: private addresses must be unique across it."""
    return tx.all(select(pod).where(pod.c.live == 1))


def add(tx: Tx, **values: Any) -> int:
    """Insert a pod."""
    return tx.insert(insert(pod).values(created_at=tx.now, **values))


def change(tx: Tx, pod_id: int, **values: Any) -> None:
    """Set columns of a pod."""
    tx.execute(update(pod).where(pod.c.id == pod_id).values(**values))


def set_addresses(tx: Tx, pod_id: int, addresses: set[str]) -> list[str]:
    """Make the pod's private addresses exactly these. Returns those that are in use and missing, changing nothing."""
    rows = tx.all(select(pod_ip).where(pod_ip.c.pod_id == pod_id))
    busy = [row["address"] for row in rows if row["vm_id"] is not None and row["address"] not in addresses]
    if busy:
        return busy
    gone = [row["id"] for row in rows if row["address"] not in addresses]
    if gone:
        tx.execute(delete(pod_ip).where(pod_ip.c.id.in_(gone)))
    present = {row["address"] for row in rows}
    fresh = [{"pod_id": pod_id, "address": address} for address in sorted(addresses - present)]
    if fresh:
        tx.execute(insert(pod_ip), fresh)
    return []


def addresses_in_use(tx: Tx, pod_id: int) -> int:
    """How many of the pod's private addresses system VMs have."""
    taken = (pod_ip.c.pod_id == pod_id, pod_ip.c.vm_id.is_not(None))
    return int(tx.scalar(select(func.count()).select_from(pod_ip).where(*taken)))


def users_of(tx: Tx, pod_id: int) -> dict[str, int]:
    """How many live things still stand in the pod."""
    counts = {
        name: int(tx.scalar(select(func.count()).select_from(t).where(t.c.live == 1, t.c.pod_id == pod_id)))
        for name, t in (("clusters", cluster), ("hosts", host))
    }
    return {name: n for name, n in counts.items() if n}


def matching(
    tx: Tx,
    *,
    pod_id: int | None,
    zone_id: int | None,
    name: str | None,
    allocation_state: str | None,
    keyword: str | None,
    offset: int,
    limit: int,
) -> tuple[list[RowMapping], int]:
    """One page of pods."""
    where: list[ColumnElement[bool]] = [pod.c.live == 1]
    for column, value in (
        (pod.c.id, pod_id),
        (pod.c.zone_id, zone_id),
        (pod.c.name, name),
        (pod.c.allocation_state, allocation_state),
    ):
        if value is not None:
            where.append(column == value)
    if keyword:
        where.append(like(pod.c.name, keyword))
    return page(tx, pod, where, offset=offset, limit=limit)
