"""Alerts, for administrators."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping

from pileus.server.alerts.standing import AlertType
from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.event import alert
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError
from pileus.server.services.paging import bounds


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    alert_id: int | None,
    type_text: str | None,
    keyword: str | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Alerts, those that are over too, newest first."""
    where: list[ColumnElement[bool]] = []
    if alert_id is not None:
        where.append(alert.c.id == alert_id)
    if type_text is not None:
        where.append(alert.c.type == int(_kind(type_text)))
    if keyword:
        where.append(like(alert.c.description, keyword))
    offset, limit = bounds(tx, page_number, page_size)
    rows, total = page(tx, alert, where, offset=offset, limit=limit, order_by=(alert.c.id.desc(),))
    return [_view(row) for row in rows], total


def _view(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["uuid"],
        "type": row["type"],
        "name": AlertType(row["type"]).name,
        "description": row["description"],
        "sent": row["created_at"],
        "standing": row["standing"] is not None,
        "cleared": row["cleared_at"],
    }


def _kind(text: str) -> AlertType:
    for each in AlertType:
        if text.upper() in (str(int(each)), each.name):
            return each
    known = ", ".join(f"{int(each)} ({each.name})" for each in AlertType)
    raise ParameterError(f"type is one of {known}", parameter="type")
