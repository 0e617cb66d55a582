"""How an event is written."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import RowMapping, bindparam, select

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.event import event
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.job import Phase

INFO, WARN, ERROR = "INFO", "WARN", "ERROR"
SCHEDULED, STARTED, COMPLETED = "Scheduled", "Started", "Completed"


def record(
    tx: Tx,
    *,
    type: str,
    description: str,
    account_id: int,
    domain_id: int,
    user_id: int,
    level: str = INFO,
    state: str = COMPLETED,
    resource_kind: str | None = None,
    resource_id: int | None = None,
    zone_id: int | None = None,
    start_id: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> int:
    """Write an event and return its row id. `start_id` is the SCHEDULED event of the same job; `facts` are JSON."""
    return rows.add(
        tx,
        event,
        type=type,
        level=level,
        state=state,
        description=description,
        account_id=account_id,
        domain_id=domain_id,
        user_id=user_id,
        resource_kind=resource_kind,
        resource_id=resource_id,
        zone_id=zone_id,
        start_id=start_id,
        facts=None if facts is None else msgspec.json.encode(dict(facts)).decode(),
        created_at=tx.now,
    )


def record_by(
    tx: Tx,
    caller: Caller,
    type: str,
    description: str,
    *,
    kind: str | None = None,
    id: int | None = None,
    zone_id: int | None = None,
    state: str = COMPLETED,
) -> int:
    """Write an event of what a caller did on their own account, to the thing of this kind and key; its row id."""
    return record(
        tx,
        type=type,
        description=description,
        account_id=caller.account_id,
        domain_id=caller.domain_id,
        user_id=caller.user_id,
        state=state,
        resource_kind=kind,
        resource_id=id,
        zone_id=zone_id,
    )


def is_told(tx: Tx, start_id: int, state: str) -> bool:
    """Whether the job that began with the event `start_id` has an event in this state."""
    return _TOLD.scalar(tx, start_id=start_id, state=state) is not None


_TOLD = Prepared(
    select(event.c.id).where(event.c.start_id == bindparam("start_id"), event.c.state == bindparam("state")).limit(1)
)


def job_started(tx: Tx, start_event_id: int) -> None:
    """Write the STARTED event of a job that this event announced, however often it is told that the job began."""
    if not is_told(tx, start_event_id, STARTED):
        _follow(tx, start_event_id, "Began: ", state=STARTED)


def job_ended(tx: Tx, job: RowMapping) -> None:
    """Write the COMPLETED event of a job that succeeded without one: what it was to bring about had come by itself.

    `job` is the job's row as it is now. Who waits for the end of what the first event announced is always told.
    """
    if job["start_event_id"] is None or job["phase"] != Phase.SUCCEEDED:
        return
    if not is_told(tx, job["start_event_id"], COMPLETED):
        _follow(tx, job["start_event_id"], "Nothing was left to do: ")


def job_failed(tx: Tx, job: RowMapping) -> None:
    """Write the ERROR event of a failed job: it repeats the type of the event the job began with.

    `job` is the job's row with its error. A job that began without an event ends without one.
    """
    if job["start_event_id"] is not None:
        _follow(tx, job["start_event_id"], "Failed: ", f": {job['error_text']}", level=ERROR)


def _follow(
    tx: Tx, start_event_id: int, before: str, after: str = "", *, level: str = INFO, state: str = COMPLETED
) -> None:
    """An event that repeats what announced the job, with words before and after its text."""
    began = rows.one(tx, event, id=start_event_id)
    if began is None:
        return
    record(
        tx,
        type=began["type"],
        description=f"{before}{began['description']}{after}",
        account_id=began["account_id"],
        domain_id=began["domain_id"],
        user_id=began["user_id"],
        level=level,
        state=state,
        resource_kind=began["resource_kind"],
        resource_id=began["resource_id"],
        zone_id=began["zone_id"],
        start_id=began["id"],
    )
