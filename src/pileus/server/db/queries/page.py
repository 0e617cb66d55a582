"""The shape of every list page: one page of the main table by key, then one IN lookup per related table."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import Column, ColumnElement, FromClause, Row, RowMapping, Select, Table, func, select

from pileus.server.db.dialect import among, as_parameter
from pileus.server.db.queries.roll import LONG, page_keys, write
from pileus.server.db.transaction import Tx

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row of columns that are known by their order."""


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
    return rows, _count(tx, table, where, len(rows), offset, limit)


def page_of(
    tx: Tx,
    columns: Sequence[Column[Any]],
    where: Collection[ColumnElement[bool]],
    *,
    offset: int,
    limit: int,
    known_as: Hashable = None,
) -> tuple[Sequence[AnyRow], int]:
    """As `page`, but only some columns of the table, as tuples, in order of `id`: what hot lists need.

    `known_as` names the conditions of a list that may have a roll (`queries.roll`).
    """
    table = columns[0].table
    assert isinstance(table, Table)  # noqa: S101 (an alias has no roll)
    rolled = None if known_as is None else page_keys(tx, table, where, known_as, offset=offset, limit=limit)
    if rolled is not None:
        keys, count = rolled
        dialect = tx.connection.dialect.name
        found = select(*columns).where(*where, among(table.c.id, dialect)).order_by(table.c.id)
        return tx.execute(found, {"keys": as_parameter(keys, dialect)}).all() if keys else (), count
    rows = tx.execute(select(*columns).where(*where).order_by(table.c.id).offset(offset).limit(limit)).all()
    count = _count(tx, table, where, len(rows), offset, limit)
    if known_as is not None and count >= LONG:
        write(tx, table, where, known_as)
    return rows, count


def _count(
    tx: Tx, table: FromClause, where: Collection[ColumnElement[bool]], here: int, offset: int, limit: int
) -> int:
    if here < limit and (here or offset == 0):
        return offset + here
    return int(tx.scalar(select(func.count()).select_from(table).where(*where)))


class Lookup:
    """Some columns of the rows of a table whose `key` is among the given ones, in one statement that is made once.

    Rows are tuples of the columns in their order; `key` need not be one of them. `where` bounds the rows further.
    """

    def __init__(
        self, table: Table, *columns: str, key: str = "id", where: Collection[ColumnElement[bool]] = ()
    ) -> None:
        self._key = table.c[key]
        self._columns = [table.c[name] for name in columns]
        self._where = tuple(where)
        self._statements: dict[str, Select[*tuple[Any, ...]]] = {}

    def rows(self, tx: Tx, keys: Iterable[Any]) -> Sequence[AnyRow]:
        """The key, then the columns, of every row."""
        wanted = {key for key in keys if key is not None}
        if not wanted:
            return ()
        dialect = tx.connection.dialect.name
        statement = self._statements.get(dialect)
        if statement is None:
            statement = select(self._key, *self._columns).where(*self._where, among(self._key, dialect))
            self._statements[dialect] = statement
        return tx.execute(statement, {"keys": as_parameter(wanted, dialect)}).all()

    def by_key(self, tx: Tx, keys: Iterable[Any]) -> dict[Any, AnyRow]:
        """The rows by key, of which each has one."""
        return {row[0]: row for row in self.rows(tx, keys)}

    def grouped(self, tx: Tx, keys: Iterable[Any]) -> defaultdict[Any, list[AnyRow]]:
        """The rows by key, of which each has any number."""
        found: defaultdict[Any, list[AnyRow]] = defaultdict(list)
        for row in self.rows(tx, keys):
            found[row[0]].append(row)
        return found


def related(
    tx: Tx, table: Table, keys: Iterable[int | None], *, key: Column[Any] | None = None
) -> dict[int, RowMapping]:
    """Rows of a related table by key, for all keys of a page at once."""
    column = table.c.id if key is None else key
    return {row[column.name]: row for row in _whole(tx, table, column, {k for k in keys if k is not None})}


def grouped(
    tx: Tx, table: Table, keys: Iterable[int], column: Column[Any], *, live: bool = False
) -> dict[int, list[RowMapping]]:
    """Rows of a related table, gathered by the column that points at the page's rows; with `live`, live ones alone."""
    wanted = set(keys)
    found: dict[int, list[RowMapping]] = {k: [] for k in wanted}
    for row in _whole(tx, table, column, wanted, live=live):
        found[row[column.name]].append(row)
    return found


def _whole(
    tx: Tx, table: Table, column: Column[Any], keys: Collection[int], *, live: bool = False
) -> Sequence[RowMapping]:
    if not keys:
        return ()
    dialect = tx.connection.dialect.name
    statement = _whole_rows(table, column, live, dialect)
    return tx.execute(statement, {"keys": as_parameter(keys, dialect)}).mappings().all()


@cache
def _whole_rows(table: Table, column: Column[Any], live: bool, dialect: str) -> Select[*tuple[Any, ...]]:
    statement = select(table).where(among(column, dialect))
    return statement.where(table.c.live == 1) if live else statement


def like(column: Column[Any], text: str) -> ColumnElement[bool]:
    """Keyword search: contains, without case, wildcards taken literally."""
    escaped = text.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return func.lower(column).like(f"%{escaped}%", escape="\\")
