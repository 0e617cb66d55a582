"""Domains: a tree of paths."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, func, insert, select, update

from pileus.server.db.dialect import among, as_parameter
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.page import page
from pileus.server.db.tables.account import account, domain
from pileus.server.db.transaction import Tx

ACTIVE, INACTIVE = "Active", "Inactive"
"""States of a domain: an inactive one is being deleted."""


def by_id(tx: Tx, domain_id: int, *, active: bool = False) -> RowMapping | None:
    """The live domain; with `active` only if it is not being deleted."""
    states = (ACTIVE,) if active else (ACTIVE, INACTIVE)
    return tx.one(select(domain).where(domain.c.id == domain_id, domain.c.live == 1, domain.c.state.in_(states)))


def any_by_id(tx: Tx, domain_id: int) -> RowMapping | None:
    """The domain, removed or not."""
    return tx.one(select(domain).where(domain.c.id == domain_id))


def named(tx: Tx, parent_id: int, name: str) -> RowMapping | None:
    """The live domain of this name below a parent."""
    return tx.one(select(domain).where(domain.c.parent_id == parent_id, domain.c.name == name, domain.c.live == 1))


def subtree(tx: Tx, path: str) -> list[RowMapping]:
    """The live domain of a path and all below it, nearest to ROOT first."""
    inside = func.substr(domain.c.path, 1, len(path)) == path
    return tx.all(select(domain).where(domain.c.live == 1, inside).order_by(domain.c.level, domain.c.id))


def going(tx: Tx) -> list[RowMapping]:
    """Live domains that are being deleted, below none that is."""
    return _GOING.all(tx)


_tops = domain.alias("tops")

_above = select(_tops.c.id).where(_tops.c.id == domain.c.parent_id, _tops.c.live == 1, _tops.c.state == INACTIVE)

_GOING = Prepared(
    select(domain).where(domain.c.live == 1, domain.c.state == INACTIVE, ~_above.exists()).order_by(domain.c.id)
)


def list_page(tx: Tx, where: list[ColumnElement[bool]], *, offset: int, limit: int) -> tuple[list[RowMapping], int]:
    """Live domains and the number of all matches."""
    return page(tx, domain, [domain.c.live == 1, *where], offset=offset, limit=limit)


def parents_with_children(tx: Tx, domain_ids: Collection[int]) -> set[int]:
    """Those of the domains that have live domains below them."""
    found = select(domain.c.parent_id).where(domain.c.live == 1, among(domain.c.parent_id, tx.connection.dialect.name))
    keys = {"keys": as_parameter(domain_ids, tx.connection.dialect.name)}
    return {int(i) for i in tx.execute(found.distinct(), keys).scalars()}


def accounts_in(tx: Tx, domain_ids: Collection[int]) -> int:
    """How many live accounts the domains have."""
    found = select(func.count()).select_from(account).where(account.c.live == 1, account.c.domain_id.in_(domain_ids))
    return int(tx.scalar(found))


def add(tx: Tx, **values: Any) -> int:
    """Insert a domain; returns its key."""
    return tx.insert(insert(domain).values(created_at=tx.now, **values))


def change(tx: Tx, domain_id: int, **values: Any) -> None:
    """Change columns of a domain."""
    tx.execute(update(domain).where(domain.c.id == domain_id).values(**values))


def remove(tx: Tx, domain_id: int) -> None:
    """Remove a domain: the row stays for history, its name is free."""
    change(tx, domain_id, live=None, state=INACTIVE, removed_at=tx.now)
