"""Jobs that a step starts and waits for. The child's UUID is derived from the step, so it is submitted once."""

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import RowMapping, select

from pileus.server.db import rows
from pileus.server.db.tables.job import job
from pileus.server.domain.errors import (
    InsufficientCapacity,
    InternalError,
    LimitExceeded,
    ParameterError,
    PermissionDenied,
    PileusError,
    ResourceInUse,
    ResourceUnavailable,
    UnsupportedAction,
)
from pileus.server.domain.job import Phase
from pileus.server.jobs.context import Nap, StepContext
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import JobRef, Owner, submit

_SPACE = uuid.UUID("6a3c54b2-7f0e-4c57-9a51-0b7f5f2f9f11")
_ERRORS: tuple[type[PileusError], ...] = (
    InsufficientCapacity,
    LimitExceeded,
    ParameterError,
    PermissionDenied,
    ResourceInUse,
    ResourceUnavailable,
    UnsupportedAction,
)


def child(
    ctx: StepContext,
    plan: Plan,
    *,
    command: str,
    label: str = "",
    resource_key: str | None = None,
    instance_kind: str | None = None,
    instance_id: int | None = None,
    owner: Owner | None = None,
    deadline_seconds: float | None = None,
) -> JobRef:
    """The child job of this step, submitted on the first call. Follow it with `result_of`.

    Its deadline is the parent's unless given; it runs on behalf of the parent's owner unless given.
    """
    child_uuid = _child_uuid(ctx, label)
    known = rows.one(ctx.tx, job, uuid=child_uuid)
    if known is not None:
        return JobRef(known["id"], child_uuid)
    return submit(
        ctx.tx,
        plan,
        owner or Owner(ctx.account_id, ctx.domain_id, ctx.user_id),
        command=command,
        instance_kind=instance_kind,
        instance_id=instance_id,
        resource_key=resource_key,
        deadline_seconds=ctx.until(ctx.deadline_at) if deadline_seconds is None else deadline_seconds,
        parent_id=ctx.job_id,
        uuid=child_uuid,
    )


def result_of(ctx: StepContext, job_id: int) -> Mapping[str, Any]:
    """Nap until the job has ended, then its result. Raises its error when it failed."""
    row = settled(ctx, job_id)
    if row["phase"] != Phase.SUCCEEDED:
        raise _error(row["error_code"], row["error_text"])
    result: dict[str, Any] = msgspec.json.decode(row["result"] or "{}")
    return result


def settled(ctx: StepContext, job_id: int) -> RowMapping:
    """Nap until the job has ended, well or not; its row. An undo calls this before it undoes what a child did."""
    row = rows.one(ctx.tx, job, id=job_id)
    if row is None:
        raise LookupError(f"no job {job_id}")
    if row["open"] is not None:
        raise Nap(topic=f"job:{job_id}")
    return row


def children_settled(ctx: StepContext) -> None:
    """Nap until no child of this job is open: for the undo of a step that started some."""
    running = ctx.tx.scalar(select(job.c.id).where(job.c.parent_id == ctx.job_id, job.c.open == 1).limit(1))
    if running is not None:
        raise Nap(topic=f"job:{running}")


def _child_uuid(ctx: StepContext, label: str) -> str:
    return str(uuid.uuid5(_SPACE, ctx.operation_id(label)))


def _error(code: int | None, text: str | None) -> PileusError:
    kind = next((kind for kind in _ERRORS if kind.code == code), InternalError)
    return kind(text or "the job failed")
