"""Management servers of the farm: a row each while they are there, told apart by when they came.

A server that comes again under its name gets a later `started_at`, so what its last life still writes finds no row.
"""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from pileus.server.db.tables.control import server
from pileus.server.db.transaction import Tx


@dataclass(frozen=True)
class Seen:
    """A server and its last sign of life, in milliseconds of its own clock."""

    name: str
    started_at: int
    seen_at: int


def enter(tx: Tx, name: str, *, address: str, version: str) -> int:
    """Take the place of this name, whoever had it. Returns what tells this life from earlier ones."""
    before = tx.scalar(select(server.c.started_at).where(server.c.name == name).with_for_update())
    started_at = tx.now if before is None else max(tx.now, before + 1)
    values = {"address": address, "version": version, "started_at": started_at, "seen_at": tx.now}
    if before is None:
        tx.execute(insert(server).values(name=name, **values))
    else:
        tx.execute(update(server).where(server.c.name == name).values(**values))
    return started_at


def beat(tx: Tx, name: str, started_at: int) -> bool:
    """Give a sign of life. False when the place is no longer ours."""
    mine = update(server).where(server.c.name == name, server.c.started_at == started_at)
    # Later in any case: a clock that stands or was set back must not look like death.
    later = select(server.c.seen_at).where(server.c.name == name, server.c.started_at == started_at)
    before = tx.scalar(later.with_for_update())
    if before is None:
        return False
    return tx.execute(mine.values(seen_at=max(tx.now, before + 1))).rowcount == 1


def leave(tx: Tx, name: str, started_at: int) -> None:
    """Give the place up. Nothing happens when it is somebody else's."""
    tx.execute(delete(server).where(server.c.name == name, server.c.started_at == started_at))


def bury(tx: Tx, dead: Seen) -> bool:
    """Remove a server that gave no sign of life since it was seen so. False when it did after all."""
    row = (server.c.name == dead.name, server.c.started_at == dead.started_at, server.c.seen_at == dead.seen_at)
    return tx.execute(delete(server).where(*row)).rowcount == 1


def all_there(tx: Tx) -> list[Seen]:
    """Every server that has a place, by name."""
    rows = tx.all(select(server.c.name, server.c.started_at, server.c.seen_at).order_by(server.c.name))
    return [Seen(row["name"], row["started_at"], row["seen_at"]) for row in rows]
