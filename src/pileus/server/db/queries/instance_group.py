"""Instance groups."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping, insert, select, update

from pileus.server.db.queries.page import page
from pileus.server.db.tables.vm import instance_group, vm
from pileus.server.db.transaction import Tx


def by_id(tx: Tx, group_id: int) -> RowMapping:
    """The group, removed or not."""
    row = tx.one(select(instance_group).where(instance_group.c.id == group_id))
    if row is None:
        raise LookupError(f"instance group {group_id}")
    return row


def named(tx: Tx, account_id: int, name: str) -> RowMapping | None:
    """The live group of this name of an account."""
    mine = (instance_group.c.account_id == account_id, instance_group.c.name == name, instance_group.c.live == 1)
    return tx.one(select(instance_group).where(*mine))


def list_page(tx: Tx, where: list[ColumnElement[bool]], *, offset: int, limit: int) -> tuple[list[RowMapping], int]:
    """Live groups and the number of all matches."""
    return page(tx, instance_group, [instance_group.c.live == 1, *where], offset=offset, limit=limit)


def add(tx: Tx, **values: Any) -> int:
    """Insert a group; returns its key."""
    return tx.insert(insert(instance_group).values(created_at=tx.now, **values))


def change(tx: Tx, group_id: int, **values: Any) -> None:
    """Set columns of a group."""
    tx.execute(update(instance_group).where(instance_group.c.id == group_id).values(**values))


def remove(tx: Tx, *which: ColumnElement[bool]) -> None:
    """Remove groups; guests that were in them are in none."""
    going = select(instance_group.c.id).where(instance_group.c.live == 1, *which)
    keys = [int(key) for key in tx.execute(going).scalars()]
    tx.execute(update(vm).where(vm.c.group_id.in_(keys)).values(group_id=None))
    gone = update(instance_group).where(instance_group.c.id.in_(keys))
    tx.execute(gone.values(live=None, removed_at=tx.now))
