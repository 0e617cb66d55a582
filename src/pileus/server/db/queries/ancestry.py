"""Who is offered what is given to a domain: that domain and all below it; administrators above it see it too."""

from typing import Any

from sqlalchemy import Column, ColumnElement, func, or_, select

from pileus.server.db.tables.account import domain
from pileus.server.db.transaction import Tx


def domains_above(tx: Tx, path: str) -> list[int]:
    """Keys of the domain of this path and of all above it, up to ROOT."""
    names = path.strip("/").split("/") if path != "/" else []
    paths = ["/"] + ["/" + "/".join(names[: depth + 1]) + "/" for depth in range(len(names))]
    return list(tx.execute(select(domain.c.id).where(domain.c.path.in_(paths), domain.c.live == 1)).scalars())


def offered(tx: Tx, column: Column[Any], path: str, *, with_below: bool) -> ColumnElement[bool]:
    """Condition: given to everybody, or to the domain of this path or one above it; `with_below`, or to one below."""
    found = [column.is_(None), column.in_(domains_above(tx, path))]
    if with_below:
        found.append(column.in_(select(domain.c.id).where(func.substr(domain.c.path, 1, len(path)) == path)))
    return or_(*found)
