"""Events older than `event.purge.delay` days are forgotten; with 0, the default, none ever is.

What announced a job that is still open stays: the events of its end refer to it. The newest event of all stays too:
SQLite gives the number of a deleted last row again, and jobs and later events remember numbers.
"""

from functools import partial

from sqlalchemy import delete, func, select

from pileus.server.config import keys, value
from pileus.server.db.tables.event import event
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database, Tx
from pileus.server.jobs.reconciler import reconciler

AT_ONCE = 500
"""Rows per transaction: nobody waits long behind it."""

_DAY_MS = 86_400_000


@reconciler("event-purge", period_seconds=3600)
def run(db: Database) -> None:
    """Delete what is too old, a few rows at a time, oldest first."""
    after = 0
    while after >= 0:
        after = db.run(partial(_sweep, after=after))


def _sweep(tx: Tx, *, after: int) -> int:
    """Go through the next old events; the last id looked at, -1 at the end. Ids grow with time, so it ends early."""
    days = value(tx, keys.event_purge_delay)
    if days == 0:
        return -1
    old = select(event.c.id, event.c.created_at).where(event.c.id > after).order_by(event.c.id).limit(AT_ONCE)
    rows = [row for row in tx.all(old) if row["created_at"] < tx.now - days * _DAY_MS]
    newest = tx.scalar(select(func.max(event.c.id)))
    ids = [int(row["id"]) for row in rows if row["id"] != newest]
    awaited = select(job.c.start_event_id).where(job.c.open == 1, job.c.start_event_id.in_(ids))
    kept = set(tx.execute(awaited).scalars())
    tx.execute(delete(event).where(event.c.id.in_([one for one in ids if one not in kept])))
    return int(rows[-1]["id"]) if len(rows) == AT_ONCE else -1
