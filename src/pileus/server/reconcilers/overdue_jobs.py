"""An alert stands for every job that is still open long after its deadline, and goes when the job ends.

A job whose time runs out while it goes forward unwinds by itself; what this finds is an undo that does not come to an
end, or a job that waits behind one. A stuck job has its alert from the engine's hook; this one clears it too.
"""

from sqlalchemy import bindparam, select

from pileus.server.alerts.standing import AlertType, clear, raise_alert
from pileus.server.config import keys, value
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.event import alert
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database, Tx
from pileus.server.jobs.reconciler import reconciler

GRACE_SECONDS = 300
"""How long an unwinding job may take after its deadline before anybody is told."""

_PREFIX = "job:"


@reconciler("overdue-jobs", period_seconds=60)
def run(db: Database) -> None:
    """Raise and clear the alerts, in one transaction: open jobs are few."""
    db.run(_tell)


def _tell(tx: Tx) -> None:
    for row in _overdue(tx):
        waits = f", which waits for {row['waiting_for']}" if row["waiting_for"] else ""
        raise_alert(
            tx,
            AlertType.JOB,
            f"{_PREFIX}{row['id']}",
            f"Job {row['uuid']} ({row['command']}) is still {row['phase']} long after its deadline{waits}",
        )
    for subject in _ended(tx):
        clear(tx, AlertType.JOB, subject)


def _overdue(tx: Tx) -> list[dict[str, object]]:
    late_before = tx.now - GRACE_SECONDS * 1000
    old_before = tx.now - value(tx, keys.job_cancel_threshold_minutes) * 60_000
    return [dict(row) for row in _OVERDUE.all(tx, late_before=late_before, old_before=old_before)]


_OVERDUE = Prepared(
    select(job.c.id, job.c.uuid, job.c.command, job.c.phase, job.c.waiting_for)
    .where(job.c.open == 1, job.c.deadline_at < bindparam("late_before"), job.c.created_at < bindparam("old_before"))
    .order_by(job.c.id)
)


def _ended(tx: Tx) -> list[str]:
    subjects = {subject: int(subject.removeprefix(_PREFIX)) for subject in _STANDING.scalars(tx)}
    if not subjects:
        return []
    still_open = set(_OPEN_AMONG.scalars(tx, job_ids=subjects.values()))
    return [subject for subject, job_id in subjects.items() if job_id not in still_open]


_STANDING = Prepared(select(alert.c.subject_key).where(alert.c.type == int(AlertType.JOB), alert.c.standing == 1))

_OPEN_AMONG = Prepared(select(job.c.id).where(job.c.open == 1, job.c.id.in_(bindparam("job_ids", expanding=True))))
