"""Domains above a domain: what is shared with a domain is shared with all below it."""

from sqlalchemy import select

from pileus.server.db.tables.account import domain
from pileus.server.db.transaction import Tx


def domains_above(tx: Tx, path: str) -> list[int]:
    """Keys of the domain of this path and of all above it, up to ROOT."""
    names = path.strip("/").split("/") if path != "/" else []
    paths = ["/"] + ["/" + "/".join(names[: depth + 1]) + "/" for depth in range(len(names))]
    return list(tx.execute(select(domain.c.id).where(domain.c.path.in_(paths), domain.c.live == 1)).scalars())
