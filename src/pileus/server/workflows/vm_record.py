"""Events of a guest's jobs: STARTED once when work begins, COMPLETED in the transaction that ends it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from pileus.server.db.transaction import Tx
from pileus.server.domain.account import SYSTEM_USER
from pileus.server.events import record, types
from pileus.server.events.write import COMPLETED, STARTED, is_told
from pileus.server.jobs.context import StepContext

KIND = "VirtualMachine"


def began(ctx: StepContext, row: RowMapping, type: str, text: str) -> None:
    """The STARTED event of the job, however often the step is called."""
    if ctx.start_event_id is not None and not _told(ctx, STARTED):
        _write(ctx, row, type, text, state=STARTED)


def completed(ctx: StepContext, row: RowMapping, type: str, text: str) -> None:
    """The COMPLETED event of the job, however often the step is called."""
    if not _told(ctx, COMPLETED):
        _write(ctx, row, type, text, state=COMPLETED)


def _told(ctx: StepContext, state: str) -> bool:
    return ctx.start_event_id is not None and is_told(ctx.tx, ctx.start_event_id, state)


def _write(ctx: StepContext, row: RowMapping, type: str, text: str, *, state: str) -> None:
    record(
        ctx.tx,
        type=type,
        description=text,
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=ctx.user_id,
        state=state,
        resource_kind=KIND,
        resource_id=row["id"],
        zone_id=row["zone_id"],
        start_id=ctx.start_event_id,
        facts=usage(row) if state == COMPLETED else None,
    )


def happened(tx: Tx, row: RowMapping, type: str, text: str, *, user_id: int = SYSTEM_USER, level: str = "INFO") -> None:
    """An event that belongs to no job of its own, or to the middle of one."""
    record(
        tx,
        type=type,
        description=text,
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=user_id,
        level=level,
        resource_kind=KIND,
        resource_id=row["id"],
        zone_id=row["zone_id"],
        facts=usage(row),
    )


def usage(row: RowMapping) -> Mapping[str, Any]:
    """What usage is computed from."""
    return {
        "vm": row["uuid"],
        "name": row["name"],
        "service_offering_id": row["service_offering_id"],
        "template_id": row["template_id"],
        "hypervisor": row["hypervisor"],
    }


def stopped(tx: Tx, row: RowMapping, why: str, *, user_id: int = SYSTEM_USER) -> None:
    """It runs no more: what usage stops counting at."""
    happened(tx, row, types.VM_STOP, f"Virtual machine {row['name']} stopped: {why}", user_id=user_id)
