"""The shape of every list page: one page of the main table by key, then one IN lookup per related table."""

from collections.abc import Collection, Hashable, Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, cast

import msgspec
from sqlalchemy import Column, ColumnElement, FromClause, Label, RowMapping, Select, Table, func, select

from pileus.server.db.dialect import among, as_parameter
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.roll import LONG, page_keys, write
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
    found = tx.execute(select(table).where(*where).order_by(*order).offset(offset).limit(limit))
    names = tuple(found.keys())
    # Plain mappings: a view reads most of a row's columns, each several times as fast as from a result row.
    rows = cast(list[RowMapping], [dict(zip(names, row, strict=True)) for row in found])
    return rows, _count(tx, table, where, len(rows), offset, limit)


def page_of_keys(
    tx: Tx,
    table: Table,
    where: Collection[ColumnElement[bool]],
    *,
    offset: int,
    limit: int,
    known_as: Hashable = None,
) -> tuple[Sequence[int], int]:
    """As `page`, but only the rows' keys, in order: what they show is then read by `Lookup`s, whatever was asked for.

    `known_as` names the conditions of a list that may have a roll (`queries.roll`).
    """
    if known_as is not None:
        rolled = page_keys(tx, table, where, known_as, offset=offset, limit=limit)
        if rolled is not None:
            return rolled
    found = select(table.c.id).where(*where).order_by(table.c.id).offset(offset).limit(limit)
    keys = tx.execute(found).scalars().all()
    count = _count(tx, table, where, len(keys), offset, limit)
    if known_as is not None and count >= LONG:
        write(tx, table, where, known_as)
    return keys, count


def _count(
    tx: Tx, table: FromClause, where: Collection[ColumnElement[bool]], here: int, offset: int, limit: int
) -> int:
    if here < limit and (here or offset == 0):
        return offset + here
    return int(tx.scalar(select(func.count()).select_from(table).where(*where)))


class Lookup:
    """Columns of the rows whose `key` is among the given ones, in one statement that is prepared once.

    Rows are tuples: the key, then the columns in their order. `source` joins further tables to the key's; `where`
    bounds the rows, but must not make another index look better than the key's; `in_order` sorts them by key.
    Values are those of JSON: no bytes.
    """

    def __init__(
        self,
        key: Column[Any],
        *columns: Column[Any] | Label[Any],
        source: FromClause | None = None,
        where: Collection[ColumnElement[bool]] = (),
        in_order: bool = False,
    ) -> None:
        self.names = tuple(column.name for column in columns)
        """Of the columns; a label says another name."""
        self.place = {name: place for place, name in enumerate(self.names, 1)}
        """Where in a row a column is."""
        self._key = key
        self._columns = (key, *columns)
        self._source = key.table if source is None else source
        self._where = tuple(where)
        self._in_order = in_order
        self._prepared: dict[str, Prepared] = {}

    def rows(self, tx: Tx, keys: Iterable[Any]) -> list[tuple[Any, ...]]:
        """Every row of these keys; None is nobody's."""
        wanted = {key for key in keys if key is not None}
        if not wanted:
            return []
        dialect = tx.connection.dialect.name
        prepared = self._prepared.get(dialect)
        if prepared is None:
            prepared = self._prepared[dialect] = Prepared(self._statement(dialect))
        if dialect == "sqlite":
            found = _in_one(tx, prepared, list(wanted))
        else:
            found = prepared.tuples(tx, keys=as_parameter(wanted, dialect))
        if self._in_order:
            found.sort(key=_first)
        return found

    def _statement(self, dialect: str) -> Select[Any]:
        columns: Sequence[Any] = self._columns
        if dialect == "sqlite":
            values = [column.element if isinstance(column, Label) else column for column in columns]
            columns = (func.json_group_array(func.json_array(*values)),)
        return select(*columns).select_from(self._source).where(*self._where, among(self._key, dialect))

    def by_key(self, tx: Tx, keys: Iterable[Any]) -> dict[Any, tuple[Any, ...]]:
        """The rows by key, of which each has one."""
        return {row[0]: row for row in self.rows(tx, keys)}


_first = itemgetter(0)
_decoder = msgspec.json.Decoder(list[tuple[Any, ...]])
_AT_ONCE = 10_000


def _in_one(tx: Tx, prepared: Prepared, keys: list[Any]) -> list[tuple[Any, ...]]:
    """All rows as one value, on SQLite. Its driver gives the interpreter away for each row that it steps to, and in a
    busy server gets it back late: with five hundred rows that is five hundred times."""
    found: list[tuple[Any, ...]] = []
    for begin in range(0, len(keys), _AT_ONCE):
        some = as_parameter(keys[begin : begin + _AT_ONCE], "sqlite")
        found += _decoder.decode(prepared.scalar(tx, keys=some))
    return found


def related(
    tx: Tx, table: Table, keys: Iterable[int | None], *names: str, key: Column[Any] | None = None
) -> dict[int, RowMapping]:
    """Rows of a related table by key, for all keys of a page at once; with `names`, those columns and the key alone."""
    column = table.c.id if key is None else key
    wanted = {k for k in keys if k is not None}
    return {row[column.name]: row for row in _rows(tx, table, column, wanted, names=names)}


def grouped(
    tx: Tx, table: Table, keys: Iterable[int], column: Column[Any], *, live: bool = False
) -> dict[int, list[RowMapping]]:
    """Rows of a related table, gathered by the column that points at the page's rows; with `live`, live ones alone."""
    wanted = set(keys)
    found: dict[int, list[RowMapping]] = {k: [] for k in wanted}
    for row in _rows(tx, table, column, wanted, live=live):
        found[row[column.name]].append(row)
    return found


def _rows(
    tx: Tx,
    table: Table,
    column: Column[Any],
    keys: Collection[int],
    *,
    names: tuple[str, ...] = (),
    live: bool = False,
) -> Sequence[RowMapping]:
    if not keys:
        return ()
    dialect = tx.connection.dialect.name
    return _finding(table, column, names, live, dialect).all(tx, keys=as_parameter(keys, dialect))


@cache
def _finding(table: Table, column: Column[Any], names: tuple[str, ...], live: bool, dialect: str) -> Prepared:
    shown = [column, *(table.c[name] for name in names)] if names else [table]
    statement = select(*shown).where(among(column, dialect))
    return Prepared(statement.where(table.c.live == 1) if live else statement)


def like(column: Column[Any], text: str) -> ColumnElement[bool]:
    """Keyword search: contains, without case, wildcards taken literally."""
    escaped = text.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return func.lower(column).like(f"%{escaped}%", escape="\\")
