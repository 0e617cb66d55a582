"""Service, disk and network offerings, and operating systems."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Table, func, insert, or_, select, update

from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.network import network
from pileus.server.db.tables.offering import disk_offering, network_offering, service_offering
from pileus.server.db.tables.template import os_category, os_type
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx

SERVICE = service_offering
DISK = disk_offering
NETWORK = network_offering


def by_id(tx: Tx, table: Table, offering_id: int) -> RowMapping:
    """The offering, removed or not."""
    row = tx.one(select(table).where(table.c.id == offering_id))
    if row is None:
        raise LookupError(f"{table.name} {offering_id}")
    return row


def add(tx: Tx, table: Table, **values: Any) -> int:
    """Insert an offering."""
    return tx.insert(insert(table).values(created_at=tx.now, **values))


def change(tx: Tx, table: Table, offering_id: int, **values: Any) -> None:
    """Set columns of an offering."""
    tx.execute(update(table).where(table.c.id == offering_id).values(**values))


def withdraw(tx: Tx, domain_ids: Collection[int]) -> None:
    """Offer to nobody what was offered to domains that go; machines and volumes that have it keep it."""
    for table in (SERVICE, DISK):
        theirs = (table.c.live == 1, table.c.domain_id.in_(domain_ids))
        tx.execute(update(table).where(*theirs).values(live=None, removed_at=tx.now))


def matching(
    tx: Tx,
    table: Table,
    equal: dict[str, Any],
    *,
    given: ColumnElement[bool] | None,
    keyword: str | None,
    offset: int,
    limit: int,
) -> tuple[list[RowMapping], int]:
    """One page. `given` is the condition of what the caller is offered, None for all."""
    where: list[ColumnElement[bool]] = [table.c.live == 1]
    where += [table.c[name] == value for name, value in equal.items() if value is not None]
    if given is not None:
        where.append(given)
    if keyword:
        where.append(or_(like(table.c.name, keyword), like(table.c.display_text, keyword)))
    return page(tx, table, where, offset=offset, limit=limit)


def network_named(tx: Tx, name: str) -> bool:
    """Whether any network offering has or had this name."""
    return tx.scalar(select(network_offering.c.id).where(network_offering.c.name == name)) is not None


def network_services(tx: Tx, name: str) -> str:
    """What networks of a built-in offering are served."""
    return str(tx.scalar(select(network_offering.c.services).where(network_offering.c.name == name)))


def networks_with(tx: Tx, offering_id: int) -> int:
    """How many networks there are that have a network offering."""
    having = select(func.count()).select_from(network).where(network.c.live == 1, network.c.offering_id == offering_id)
    return int(tx.scalar(having))


def service_of_vm(tx: Tx, vm_id: int) -> int | None:
    """The service offering of a VM."""
    found = tx.scalar(select(vm.c.service_offering_id).where(vm.c.id == vm_id))
    return int(found) if found is not None else None


def os_types(
    tx: Tx, *, os_type_id: int | None, category_id: int | None, keyword: str | None, offset: int, limit: int
) -> tuple[list[RowMapping], int]:
    """One page of operating systems."""
    where: list[ColumnElement[bool]] = []
    if os_type_id is not None:
        where.append(os_type.c.id == os_type_id)
    if category_id is not None:
        where.append(os_type.c.category_id == category_id)
    if keyword:
        where.append(like(os_type.c.name, keyword))
    return page(tx, os_type, where, offset=offset, limit=limit)


def os_categories(
    tx: Tx, *, category_id: int | None, keyword: str | None, offset: int, limit: int
) -> tuple[list[RowMapping], int]:
    """One page of OS categories."""
    where: list[ColumnElement[bool]] = []
    if category_id is not None:
        where.append(os_category.c.id == category_id)
    if keyword:
        where.append(like(os_category.c.name, keyword))
    return page(tx, os_category, where, offset=offset, limit=limit)
