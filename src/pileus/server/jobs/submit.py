"""How a job comes to be, and how others wake it: called inside the caller's transaction."""

from dataclasses import dataclass

import msgspec
import structlog
from sqlalchemy import bindparam, or_, select, update

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.column import new_uuid
from pileus.server.db.tables.job import job
from pileus.server.db.topics import hold_topics
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Owner as Owner
from pileus.server.domain.errors import ResourceInUse
from pileus.server.domain.ids import Id, Job
from pileus.server.domain.job import Phase
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.wakeup import announce

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class JobRef:
    """A submitted job."""

    id: Id[Job]
    uuid: str


def submit(
    tx: Tx,
    plan: Plan,
    owner: Owner,
    *,
    command: str,
    instance_kind: str | None = None,
    instance_id: int | None = None,
    resource_key: str | None = None,
    queue: bool = True,
    deadline_seconds: float = 3600,
    parent_id: int | None = None,
    start_event_id: int | None = None,
    uuid: str | None = None,
) -> JobRef:
    """Store a job with its whole plan in the caller's transaction; a worker is woken after the commit.

    One job runs per `resource_key` ("vm:42"); with `queue` the next waits behind it, without it `ResourceInUse`.
    The deadline counts from now, time in the queue included; a job whose turn comes too late undoes its first step
    and fails, so that undo also answers for rows the caller writes along with the job. `uuid` is for children only.
    """
    phase = Phase.FORWARD
    if resource_key is not None:
        # Held until commit: the running job cannot end in between and overlook that this one queues behind it.
        hold_topics(tx, f"key:{resource_key}")
        if _BUSY.scalar(tx, the_key=resource_key) is not None:
            if not queue:
                raise ResourceInUse(f"another job is running on {resource_key}")
            phase = Phase.QUEUED
    uuid = uuid or new_uuid()
    job_id = rows.add(
        tx,
        job,
        uuid=uuid,
        workflow=plan.workflow,
        command=command,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=owner.user_id,
        instance_kind=instance_kind,
        instance_id=instance_id,
        resource_key=resource_key,
        running_key=resource_key if phase is Phase.FORWARD else None,
        parent_id=parent_id,
        start_event_id=start_event_id,
        phase=str(phase),
        plan=plan.encode(),
        avoid="{}",
        result=msgspec.json.encode({}).decode(),
        wake_at=tx.now if phase is Phase.FORWARD else None,
        waiting_for=None if phase is Phase.FORWARD else f"key:{resource_key}",
        deadline_at=tx.now + int(deadline_seconds * 1000),
        created_at=tx.now,
    )
    # By the commit, which several jobs may share, it is forgotten whose step or call this was.
    told = {**structlog.contextvars.get_contextvars(), "submitted": uuid, "workflow": plan.workflow}
    tx.after_commit(lambda: log.info("job submitted", **told, command=command))
    tx.after_commit(announce)
    return JobRef(Id(job_id), uuid)


def wake(tx: Tx, *topics: str) -> None:
    """Let every job that naps on one of the topics go on ("operation:…", "job:7", "network:3")."""
    hold_topics(tx, *topics)
    # A plain loop, not any(): every topic must be woken.
    woken = sum([_WAKING.changed(tx, topic=topic, now=tx.now) for topic in topics])
    if woken:
        tx.after_commit(announce)


_BUSY = Prepared(select(job.c.id).where(job.c.open == 1, job.c.resource_key == bindparam("the_key")).limit(1))

_WAKING = Prepared(
    update(job)
    .where(job.c.waiting_for == bindparam("topic"), job.c.open == 1)
    .where(or_(job.c.wake_at.is_(None), job.c.wake_at > bindparam("now")))
    .where(job.c.phase != str(Phase.QUEUED))
    .values(wake_at=bindparam("now"))
)
