"""Operating systems and their categories. Guide: "OS Preferences"."""

from typing import Any

from pileus.server.db.queries import offering as offerings
from pileus.server.db.queries.page import related
from pileus.server.db.tables.template import os_category
from pileus.server.db.transaction import Tx
from pileus.server.services.paging import bounds


def list_types(
    tx: Tx,
    *,
    os_type_id: int | None,
    category_id: int | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Operating systems a template may hold."""
    offset, limit = bounds(tx, page, page_size)
    rows, count = offerings.os_types(
        tx, os_type_id=os_type_id, category_id=category_id, keyword=keyword, offset=offset, limit=limit
    )
    categories = related(tx, os_category, (row["category_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "description": row["name"],
            "os_category_id": categories[row["category_id"]]["uuid"],
            "os_category_name": categories[row["category_id"]]["name"],
        }
        for row in rows
    ], count


def list_categories(
    tx: Tx, *, category_id: int | None, keyword: str | None, page: int | None, page_size: int | None
) -> tuple[list[dict[str, Any]], int]:
    """Categories that hosts may prefer."""
    offset, limit = bounds(tx, page, page_size)
    rows, count = offerings.os_categories(tx, category_id=category_id, keyword=keyword, offset=offset, limit=limit)
    return [{"id": row["uuid"], "name": row["name"]} for row in rows], count
