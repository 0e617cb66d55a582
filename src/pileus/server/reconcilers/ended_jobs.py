"""Ended jobs and answered operations are kept for `job.expire.minutes`, then they go.

What an open job may still look at stays, however old it is: its operations, and the children it waited for. The newest
row of all stays too: SQLite gives the number of a deleted last row again, and volumes, networks and lives remember the
number of the job that made them to know whose undo may take them away.
"""

from functools import partial

from sqlalchemy import RowMapping, delete, func, select

from pileus.server.config import keys, value
from pileus.server.db.tables.host import host_operation
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database, Tx
from pileus.server.jobs.reconciler import reconciler

AT_ONCE = 200
"""Rows per transaction: nobody waits long behind it."""


@reconciler("ended-jobs", period_seconds=3600)
def run(db: Database) -> None:
    """Delete what has expired, a few rows at a time, oldest first."""
    for sweep in (_operations, _jobs):
        after = 0
        while after >= 0:
            after = db.run(partial(sweep, after=after))


def _jobs(tx: Tx, *, after: int) -> int:
    """Go through the next ended jobs; the last id looked at, -1 at the end. Ids grow with time, so it ends early."""
    columns = (job.c.id, job.c.completed_at, job.c.parent_id)
    ended = select(*columns).where(job.c.open.is_(None), job.c.id > after).order_by(job.c.id).limit(AT_ONCE)
    rows = tx.all(ended)
    expiry = _expiry(tx)
    expired = [row for row in rows if row["completed_at"] < expiry]
    kept = _open_parents(tx, expired)
    newest = tx.scalar(select(func.max(job.c.id)))
    gone = [row["id"] for row in expired if row["parent_id"] not in kept and row["id"] != newest]
    tx.execute(delete(job).where(job.c.id.in_(gone)))
    return int(rows[-1]["id"]) if expired and len(rows) == AT_ONCE else -1


def _open_parents(tx: Tx, rows: list[RowMapping]) -> set[int]:
    parents = {row["parent_id"] for row in rows if row["parent_id"] is not None}
    return set(tx.execute(select(job.c.id).where(job.c.open == 1, job.c.id.in_(parents))).scalars())


def _operations(tx: Tx, *, after: int) -> int:
    """As `_jobs`, for operations that were answered."""
    answered = (
        select(host_operation.c.id, host_operation.c.answered_at, job.c.open)
        .outerjoin(job, job.c.id == host_operation.c.job_id)
        .where(host_operation.c.pending.is_(None), host_operation.c.id > after)
        .order_by(host_operation.c.id)
        .limit(AT_ONCE)
    )
    rows = tx.all(answered)
    expiry = _expiry(tx)
    expired = [row for row in rows if row["answered_at"] < expiry]
    gone = [row["id"] for row in expired if row["open"] is None]
    tx.execute(delete(host_operation).where(host_operation.c.id.in_(gone)))
    return int(rows[-1]["id"]) if expired and len(rows) == AT_ONCE else -1


def _expiry(tx: Tx) -> int:
    return tx.now - value(tx, keys.job_expire_minutes) * 60_000
