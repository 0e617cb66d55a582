"""Who is offered what is given to a domain: that domain and all below it; administrators above it see it too."""

from typing import Any

from sqlalchemy import Column, ColumnElement, func, or_, select

from pileus.server.db.tables.account import domain
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN


def domains_above(tx: Tx, path: str) -> list[int]:
    """Keys of the domain of this path and of all above it, from ROOT down; those that exist, if it does not.

    One look-up by index per level: what it costs does not grow with the number of domains.
    """
    keys = [ROOT_DOMAIN]
    for name in path.strip("/").split("/") if path != "/" else ():
        below = domain.c.parent_id == keys[-1]
        found = tx.scalar(select(domain.c.id).where(below, domain.c.name == name, domain.c.live == 1))
        if found is None:
            break
        keys.append(int(found))
    return keys


def offered(tx: Tx, column: Column[Any], path: str, *, with_below: bool) -> ColumnElement[bool]:
    """Condition: given to everybody, or to the domain of this path or one above it; `with_below`, or to one below."""
    found = [column.is_(None), column.in_(domains_above(tx, path))]
    if with_below:
        found.append(column.in_(select(domain.c.id).where(func.substr(domain.c.path, 1, len(path)) == path)))
    return or_(*found)
