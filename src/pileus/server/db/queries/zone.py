"""Zones and the VLANs of their ranges."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, or_, select, update

from pileus.server.db.queries import zone_detail
from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import network, vlan_ip_range
from pileus.server.db.tables.place import cluster, pod, zone, zone_vnet
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx


def by_id(tx: Tx, zone_id: int) -> RowMapping:
    """The zone, removed or not."""
    row = tx.one(select(zone).where(zone.c.id == zone_id))
    if row is None:
        raise LookupError(f"zone {zone_id}")
    return row


def add(tx: Tx, **values: Any) -> int:
    """Insert a zone."""
    return tx.insert(insert(zone).values(created_at=tx.now, **values))


def change(tx: Tx, zone_id: int, **values: Any) -> None:
    """Set columns of a zone."""
    tx.execute(update(zone).where(zone.c.id == zone_id).values(**values))


def of_domains(tx: Tx, domain_ids: Collection[int]) -> list[RowMapping]:
    """Live zones that were given to one of the domains."""
    return tx.all(select(zone).where(zone.c.live == 1, zone.c.domain_id.in_(domain_ids)))


def name_taken(tx: Tx, name: str, *, other_than: int | None = None) -> bool:
    """Whether a live zone has this name."""
    found = tx.scalar(select(zone.c.id).where(zone.c.name == name, zone.c.live == 1))
    return found is not None and found != other_than


def users_of(tx: Tx, zone_id: int) -> dict[str, int]:
    """How many live things of each kind still stand in the zone."""
    tables = {
        "pods": pod,
        "clusters": cluster,
        "hosts": host,
        "networks": network,
        "virtual machines": vm,
        "IP ranges": vlan_ip_range,
    }
    # The zone's own public network goes with it.
    besides = {"networks": [network.c.is_system == 0]}
    counts = {
        name: int(
            tx.scalar(
                select(func.count()).select_from(t).where(t.c.live == 1, t.c.zone_id == zone_id, *besides.get(name, ()))
            )
        )
        for name, t in tables.items()
    }
    return {name: n for name, n in counts.items() if n}


def remove(tx: Tx, zone_id: int) -> None:
    """Take a zone out of use."""
    change(tx, zone_id, live=None, removed_at=tx.now)
    zone_detail.forget(tx, zone_id)
    tx.execute(delete(zone_vnet).where(zone_vnet.c.zone_id == zone_id))
    systems = update(network).where(network.c.zone_id == zone_id, network.c.is_system == 1, network.c.live == 1)
    tx.execute(systems.values(live=None, on_demand_key=None, removed_at=tx.now))


def set_vnets(tx: Tx, zone_id: int, first: int, last: int) -> list[int]:
    """Make the zone's VLANs exactly first..last. Returns those outside that are in use, changing nothing then."""
    outside = or_(zone_vnet.c.vnet < first, zone_vnet.c.vnet > last)
    here = zone_vnet.c.zone_id == zone_id
    busy = list(
        tx.execute(select(zone_vnet.c.vnet).where(here, outside, zone_vnet.c.network_id.is_not(None))).scalars()
    )
    if busy:
        return busy
    tx.execute(delete(zone_vnet).where(here, outside))
    present = set(tx.execute(select(zone_vnet.c.vnet).where(here)).scalars())
    missing = [{"zone_id": zone_id, "vnet": n} for n in range(first, last + 1) if n not in present]
    if missing:
        tx.execute(insert(zone_vnet), missing)
    return []


def visible(
    tx: Tx,
    *,
    offered: ColumnElement[bool] | None,
    zone_id: int | None,
    keyword: str | None,
    domain_id: int | None,
    enabled_only: bool,
    with_vms_of: int | None,
    offset: int,
    limit: int,
) -> tuple[list[RowMapping], int]:
    """One page of zones. `offered` is the condition of what the caller may use, None for all; `with_vms_of` keeps
    zones in which this account has guests."""
    where: list[ColumnElement[bool]] = [zone.c.live == 1]
    if offered is not None:
        where.append(offered)
    if with_vms_of is not None:
        guests = (vm.c.live == 1, vm.c.account_id == with_vms_of, vm.c.kind == "User")
        where.append(zone.c.id.in_(select(vm.c.zone_id).where(*guests)))
    if zone_id is not None:
        where.append(zone.c.id == zone_id)
    if domain_id is not None:
        where.append(zone.c.domain_id == domain_id)
    if enabled_only:
        where.append(zone.c.allocation_state == "Enabled")
    if keyword:
        where.append(like(zone.c.name, keyword))
    return page(tx, zone, where, offset=offset, limit=limit)
