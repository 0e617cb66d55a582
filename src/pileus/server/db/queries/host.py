"""Hosts: rows, tags, capacity, load."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, bindparam, delete, func, insert, select, update

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.host import (
    enrolment_token,
    host,
    host_capacity,
    host_stats,
    host_tag,
    storage_pool_host,
)
from pileus.server.db.tables.template import template_copy
from pileus.server.db.tables.vm import vm_incarnation
from pileus.server.db.transaction import Tx


def by_id(tx: Tx, host_id: int) -> RowMapping:
    """The host, removed or not."""
    row = rows.one(tx, host, id=host_id)
    if row is None:
        raise LookupError(f"host {host_id}")
    return row


def named(tx: Tx, zone_id: int, name: str) -> RowMapping | None:
    """The live host of this name in a zone."""
    return tx.one(select(host).where(host.c.zone_id == zone_id, host.c.name == name, host.c.live == 1))


def secondary_storage_of(tx: Tx, zone_id: int) -> RowMapping | None:
    """The secondary storage of a zone."""
    return tx.one(
        select(host).where(host.c.live == 1, host.c.zone_id == zone_id, host.c.kind == "SecondaryStorage").limit(1)
    )


def add(tx: Tx, **values: Any) -> int:
    """Insert a host with empty capacity and load."""
    host_id = tx.insert(insert(host).values(created_at=tx.now, **values))
    tx.execute(insert(host_capacity).values(host_id=host_id))
    tx.execute(insert(host_stats).values(host_id=host_id, taken_at=tx.now))
    return host_id


def change(tx: Tx, host_id: int, **values: Any) -> None:
    """Set columns of a host."""
    tx.execute(update(host).where(host.c.id == host_id).values(**values))


def add_token(tx: Tx, host_id: int, token_hash: str, *, expires_at: int) -> None:
    """Store the hash of the one-time secret with which the host's agent enrols."""
    tx.execute(
        insert(enrolment_token).values(token_hash=token_hash, host_id=host_id, created_at=tx.now, expires_at=expires_at)
    )


def token_taken(tx: Tx, token_hash: str) -> bool:
    """Whether any host was ever given this secret."""
    return tx.scalar(select(enrolment_token.c.host_id).where(enrolment_token.c.token_hash == token_hash)) is not None


def void_tokens(tx: Tx, host_ids: Collection[int]) -> None:
    """No secret that these hosts were given before counts any more."""
    of_them = update(enrolment_token).where(enrolment_token.c.host_id.in_(list(host_ids)))
    tx.execute(of_them.values(used_at=func.coalesce(enrolment_token.c.used_at, tx.now), key_sha256=None))


def enrolling_in(tx: Tx, cluster_id: int) -> list[RowMapping]:
    """The hosts of a cluster whose agents enrol with a secret of their own: all but those that fleets hold."""
    mine = select(host.c.id, host.c.uuid, host.c.name).where(
        host.c.cluster_id == cluster_id, host.c.live == 1, host.c.fleet_id.is_(None)
    )
    return tx.all(mine.order_by(host.c.id))


def set_tags(tx: Tx, host_id: int, tags: list[str]) -> None:
    """Make the host's tags exactly these."""
    tx.execute(delete(host_tag).where(host_tag.c.host_id == host_id))
    if tags:
        tx.execute(insert(host_tag), [{"host_id": host_id, "tag": tag} for tag in sorted(set(tags))])


def live_among(tx: Tx, host_ids: Collection[int]) -> list[RowMapping]:
    """Those of some hundreds of hosts that are not removed, by id."""
    return _LIVE_AMONG.all(tx, host_ids=host_ids)


_LIVE_AMONG = Prepared(
    select(host).where(host.c.id.in_(bindparam("host_ids", expanding=True)), host.c.live == 1).order_by(host.c.id)
)


def set_capacities(tx: Tx, totals: Mapping[int, tuple[int, int]]) -> None:
    """Set what guests may claim of hosts: CPU in MHz, memory in MiB. Only what has changed is written."""
    changes = []
    for row in _CAPACITIES.all(tx, host_ids=totals):
        mhz, mib = totals[row["host_id"]]
        if (mhz, mib) != (row["cpu_total_mhz"], row["ram_total_mib"]):
            changes.append({"of": row["host_id"], "mhz": mhz, "mib": mib})
    if changes:
        tx.execute(_SET_CAPACITY, changes)


_CAPACITIES = Prepared(
    select(host_capacity.c.host_id, host_capacity.c.cpu_total_mhz, host_capacity.c.ram_total_mib).where(
        host_capacity.c.host_id.in_(bindparam("host_ids", expanding=True))
    )
)

_SET_CAPACITY = (
    update(host_capacity)
    .where(host_capacity.c.host_id == bindparam("of"))
    .values(cpu_total_mhz=bindparam("mhz"), ram_total_mib=bindparam("mib"))
)


def lives_on(tx: Tx, host_id: int) -> int:
    """How many guests and routers live on the host."""
    return int(
        tx.scalar(
            select(func.count())
            .select_from(vm_incarnation)
            .where(vm_incarnation.c.current == 1, vm_incarnation.c.host_id == host_id)
        )
    )


def templates_on(tx: Tx, host_id: int) -> int:
    """How many templates have a copy on this secondary storage."""
    here = (template_copy.c.host_id == host_id, template_copy.c.state.in_(("Ready", "Downloading", "Removing")))
    return int(tx.scalar(select(func.count()).select_from(template_copy).where(*here)))


def forget(tx: Tx, host_id: int) -> None:
    """Take a host out of use."""
    change(tx, host_id, live=None, removed_at=tx.now, wanted=None, fleet_id=None)
    tx.execute(delete(storage_pool_host).where(storage_pool_host.c.host_id == host_id))


def matching(
    tx: Tx,
    equal: dict[str, Any],
    *,
    with_vm: int | None,
    keyword: str | None,
    offset: int,
    limit: int,
) -> tuple[list[RowMapping], int]:
    """One page of hosts; `equal` maps columns to wanted values, None for any; `with_vm` asks where a VM lives."""
    where: list[ColumnElement[bool]] = [host.c.live == 1]
    where += [host.c[name] == value for name, value in equal.items() if value is not None]
    if with_vm is not None:
        where.append(
            host.c.id.in_(
                select(vm_incarnation.c.host_id).where(vm_incarnation.c.vm_id == with_vm, vm_incarnation.c.current == 1)
            )
        )
    if keyword:
        where.append(like(host.c.name, keyword))
    return page(tx, host, where, offset=offset, limit=limit)
