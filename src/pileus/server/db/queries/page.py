"""The shape of every list page: one page of the main table by key, then one IN lookup per related table."""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Column, ColumnElement, RowMapping, Table, func, select

from pileus.server.db.transaction import Tx


def page(
    tx: Tx,
    table: Table,
    where: Collection[ColumnElement[bool]],
    *,
    offset: int,
    limit: int,
    order_by: tuple[Any, ...] | None = None,
) -> tuple[list[RowMapping], int]:
    """Rows of one page and the number of all matches. Counting is skipped when the page itself tells it."""
    order = order_by or (table.c.id,)
    rows = tx.all(select(table).where(*where).order_by(*order).offset(offset).limit(limit))
    if len(rows) < limit and (rows or offset == 0):
        return rows, offset + len(rows)
    return rows, int(tx.scalar(select(func.count()).select_from(table).where(*where)))


def related(
    tx: Tx, table: Table, keys: Iterable[int | None], *, key: Column[Any] | None = None
) -> dict[int, RowMapping]:
    """Rows of a related table by key, for all keys of a page at once."""
    wanted = {k for k in keys if k is not None}
    if not wanted:
        return {}
    column = table.c.id if key is None else key
    return {row[column.name]: row for row in tx.all(select(table).where(column.in_(wanted)))}


def grouped(tx: Tx, table: Table, keys: Iterable[int], column: Column[Any]) -> dict[int, list[RowMapping]]:
    """Rows of a related table, gathered by the column that points at the page's rows."""
    wanted = set(keys)
    found: dict[int, list[RowMapping]] = {k: [] for k in wanted}
    if wanted:
        for row in tx.all(select(table).where(column.in_(wanted))):
            found[row[column.name]].append(row)
    return found


def like(column: Column[Any], text: str) -> ColumnElement[bool]:
    """Keyword search: contains, without case, wildcards taken literally."""
    escaped = text.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return func.lower(column).like(f"%{escaped}%", escape="\\")
