"""SSH key pairs: their public halves."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping, insert, select, update

from pileus.server.db.queries.page import page
from pileus.server.db.tables.ssh_key import ssh_key_pair
from pileus.server.db.transaction import Tx


def named(tx: Tx, account_id: int, name: str) -> RowMapping | None:
    """The live key pair of this name of an account."""
    mine = (ssh_key_pair.c.account_id == account_id, ssh_key_pair.c.name == name, ssh_key_pair.c.live == 1)
    return tx.one(select(ssh_key_pair).where(*mine))


def by_id(tx: Tx, pair_id: int) -> RowMapping:
    """The key pair, removed or not."""
    row = tx.one(select(ssh_key_pair).where(ssh_key_pair.c.id == pair_id))
    if row is None:
        raise LookupError(f"SSH key pair {pair_id}")
    return row


def list_page(tx: Tx, where: list[ColumnElement[bool]], *, offset: int, limit: int) -> tuple[list[RowMapping], int]:
    """Live key pairs and the number of all matches."""
    return page(tx, ssh_key_pair, [ssh_key_pair.c.live == 1, *where], offset=offset, limit=limit)


def add(tx: Tx, **values: Any) -> int:
    """Insert a key pair; returns its key."""
    return tx.insert(insert(ssh_key_pair).values(created_at=tx.now, **values))


def remove(tx: Tx, *which: ColumnElement[bool]) -> None:
    """Remove key pairs; guests deployed with them keep the public keys they have."""
    going = update(ssh_key_pair).where(ssh_key_pair.c.live == 1, *which)
    tx.execute(going.values(live=None, removed_at=tx.now))
