"""The plainest statements, prepared once for each set of columns: rows found, added and changed by equality.

What needs more (joins, guards, arithmetic) is a `Prepared` of its own beside the function that runs it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Table, bindparam, select, update

from pileus.server.db.prepared import Insertion, Prepared, Row
from pileus.server.db.transaction import Tx


def one(tx: Tx, table: Table, **where: Any) -> Row | None:
    """The row whose columns equal the values, or None. For what a unique key finds."""
    return _finding(table, tuple(where)).one(tx, **where)


def kept(tx: Tx, table: Table, row_id: int | None) -> Row | None:
    """The row of a key, read once in a unit of work: for what no unit of work reads again after it has changed it."""
    if row_id is None:
        return None
    name = f"row:{table.name}:{row_id}"
    row: Row | None = tx.memo.get(name)
    if row is None:
        row = tx.memo[name] = _finding(table, ("id",)).one(tx, id=row_id)
    return row


def keep(tx: Tx, table: Table, row: Row) -> None:
    """Let `kept` know a row that was found otherwise."""
    tx.memo[f"row:{table.name}:{row['id']}"] = row


def every(tx: Tx, table: Table, **where: Any) -> list[Row]:
    """All rows whose columns equal the values, by key."""
    return _finding(table, tuple(where)).all(tx, **where)


def add(tx: Tx, table: Table, **values: Any) -> int:
    """Insert a row into a table with an integer key; the key."""
    return _adding(table, tuple(values)).key(tx, **values)


def put(tx: Tx, table: Table, **values: Any) -> None:
    """Insert a row into a table whose key is among the values."""
    _adding(table, tuple(values)).run(tx, **values)


def change(tx: Tx, table: Table, where: Mapping[str, Any], **values: Any) -> int:
    """Set columns where others equal the values; how many rows were met."""
    return _changing(table, tuple(where), tuple(values)).changed(
        tx,
        **{f"where_{name}": value for name, value in where.items()},
        **{f"new_{name}": value for name, value in values.items()},
    )


@cache
def _finding(table: Table, where: tuple[str, ...]) -> Prepared:
    statement = select(table).where(*(table.c[name] == bindparam(name) for name in where))
    return Prepared(statement.order_by(*table.primary_key.columns))


@cache
def _adding(table: Table, columns: tuple[str, ...]) -> Insertion:
    return Insertion(table, *columns)


@cache
def _changing(table: Table, where: tuple[str, ...], columns: tuple[str, ...]) -> Prepared:
    met = (table.c[name] == bindparam(f"where_{name}") for name in where)
    return Prepared(update(table).where(*met).values({name: bindparam(f"new_{name}") for name in columns}))
