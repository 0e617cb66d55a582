"""Events as callers see them. Guide: "Event Logs"."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping

from pileus.server.auth import visibility
from pileus.server.db.queries import event as events
from pileus.server.db.queries.page import like
from pileus.server.db.tables.event import event
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError
from pileus.server.events import record
from pileus.server.events.types import NAMES
from pileus.server.events.write import ERROR
from pileus.server.services.paging import bounds

LEVELS = ("INFO", "WARN", "ERROR")

_LONGEST_SECONDS = 10**9
_LONGEST_TEXT = 4000


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    event_id: int | None,
    account: str | None,
    domain_id: int | None,
    list_all: bool | None,
    is_recursive: bool | None,
    type: str | None,
    level: str | None,
    start: int | None,
    end: int | None,
    entry_seconds: int | None,
    duration_seconds: int | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Events in the caller's scope, newest first.

    `entry_seconds` and `duration_seconds` ask for the first events of jobs that have not ended: of those announced at
    most `entry_seconds` ago, and those that have taken at least `duration_seconds` so far.
    """
    scope = visibility.scope(
        caller,
        account=account,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=event_id is not None,
        tx=tx,
    )
    where: list[ColumnElement[bool]] = scope.where(event.c.account_id, event.c.domain_id)
    if event_id is not None:
        where.append(event.c.id == event_id)
    if type is not None:
        if type not in NAMES:
            raise ParameterError(f"type is one of those that listEventTypes tells; got {type!r}", parameter="type")
        where.append(event.c.type == type)
    if level is not None:
        if level.upper() not in LEVELS:
            raise ParameterError(f"level is one of {', '.join(LEVELS)}", parameter="level")
        where.append(event.c.level == level.upper())
    if start is not None:
        where.append(event.c.created_at >= start)
    if end is not None:
        where.append(event.c.created_at <= end)
    if start is not None and end is not None and start > end:
        raise ParameterError("startdate must not be after enddate", parameter="startdate")
    if entry_seconds is not None or duration_seconds is not None:
        where.append(events.without_end(tx, before=tx.now - _ago(duration_seconds, "duration")))
    if entry_seconds is not None:
        where.append(event.c.created_at >= tx.now - _ago(entry_seconds, "entrytime"))
    if keyword:
        where.append(like(event.c.description, keyword))
    offset, limit = bounds(tx, page, page_size)
    rows, total = events.list_page(tx, where, offset=offset, limit=limit)
    return _views(tx, rows), total


def _ago(seconds: int | None, parameter: str) -> int:
    """Milliseconds of so many seconds."""
    if seconds is not None and not 0 <= seconds <= _LONGEST_SECONDS:
        raise ParameterError(f"{parameter} is a number of seconds, 0 to {_LONGEST_SECONDS}", parameter=parameter)
    return (seconds or 0) * 1000


def failed(tx: Tx, caller: Caller, type: str, what: str) -> None:
    """The ERROR event of an operation that came to nothing, in the account of whoever asked for it."""
    record(
        tx,
        type=type,
        description=f"Failed: {what}"[:_LONGEST_TEXT],
        account_id=caller.account_id,
        domain_id=caller.domain_id,
        user_id=caller.user_id,
        level=ERROR,
    )


def type_names() -> list[dict[str, Any]]:
    """All event types."""
    return [{"name": name} for name in NAMES]


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    users, accounts, domains = events.people(
        tx, {row["user_id"] for row in rows}, {row["account_id"] for row in rows}, {row["domain_id"] for row in rows}
    )
    parents = events.uuids(tx, {row["start_id"] for row in rows if row["start_id"] is not None})
    views = []
    for row in rows:
        user, account, domain = (
            users.get(row["user_id"]),
            accounts.get(row["account_id"]),
            domains.get(row["domain_id"]),
        )
        views.append(
            {
                "id": row["uuid"],
                "username": user["username"] if user else None,
                "type": row["type"],
                "level": row["level"],
                "description": row["description"],
                "account": account["name"] if account else None,
                "domain_id": domain["uuid"] if domain else None,
                "domain": domain["name"] if domain else None,
                "created": row["created_at"],
                "state": row["state"],
                "parent_id": parents.get(row["start_id"]),
            }
        )
    return views
