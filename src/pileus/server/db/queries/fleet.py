"""Fleets of simulated hosts: rows, and how many hosts are theirs."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, func, insert, select

from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.host import fleet, host
from pileus.server.db.transaction import Tx


def by_id(tx: Tx, fleet_id: int) -> RowMapping:
    """The fleet, removed or not."""
    row = tx.one(select(fleet).where(fleet.c.id == fleet_id))
    if row is None:
        raise LookupError(f"fleet {fleet_id}")
    return row


def named(tx: Tx, name: str) -> RowMapping | None:
    """The live fleet of this name."""
    return tx.one(select(fleet).where(fleet.c.name == name, fleet.c.live == 1))


def add(tx: Tx, **values: Any) -> int:
    """Insert a fleet; returns its key."""
    return tx.insert(insert(fleet).values(created_at=tx.now, **values))


def token_taken(tx: Tx, token_hash: str) -> bool:
    """Whether a fleet was ever given this secret."""
    return tx.scalar(select(fleet.c.id).where(fleet.c.token_hash == token_hash)) is not None


def hosts_of(tx: Tx, fleet_ids: Collection[int]) -> dict[int, int]:
    """How many hosts each fleet has."""
    count = select(host.c.fleet_id, func.count().label("hosts")).where(host.c.fleet_id.in_(list(fleet_ids)))
    return {row["fleet_id"]: row["hosts"] for row in tx.all(count.group_by(host.c.fleet_id))}


def matching(
    tx: Tx, *, fleet_id: int | None, name: str | None, keyword: str | None, offset: int, limit: int
) -> tuple[list[RowMapping], int]:
    """One page of fleets."""
    where: list[ColumnElement[bool]] = [fleet.c.live == 1]
    if fleet_id is not None:
        where.append(fleet.c.id == fleet_id)
    if name is not None:
        where.append(fleet.c.name == name)
    if keyword:
        where.append(like(fleet.c.name, keyword))
    return page(tx, fleet, where, offset=offset, limit=limit)
