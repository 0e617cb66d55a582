"""Very many rows at once, the fastest way each database has: COPY on PostgreSQL, one prepared INSERT elsewhere."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Table, func, select, text
from sqlalchemy.schema import AddConstraint, CreateIndex, DropConstraint, DropIndex
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from pileus.server.db.transaction import Database, Tx

_CHUNK = 2000


def next_id(tx: Tx, table: Table) -> int:
    """The key after the greatest."""
    return int(tx.scalar(select(func.coalesce(func.max(table.c.id), 0)))) + 1


def load(tx: Tx, table: Table, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows, each with a value per column named; every other column gets its default.

    Nothing is checked but what the database checks; texts hold no tab, backslash or line break. Keys that were given
    are not given again.
    """
    fixed = {
        column.name: column.default.arg
        for column in table.c
        if column.name not in columns and isinstance(column.default, ScalarElementColumnDefault)
    }
    constant = tuple(fixed.values())
    names = ", ".join((*columns, *fixed))
    complete = (row + constant for row in rows)
    cursor: Any = tx.connection.connection.cursor()
    if tx.connection.dialect.name == "postgresql":
        _copy(cursor, f"COPY {table.name} ({names}) FROM STDIN", complete)
    else:
        mark = "?" if tx.connection.dialect.name == "sqlite" else "%s"
        marks = ", ".join([mark] * (len(columns) + len(fixed)))
        statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"
        while chunk := list(itertools.islice(complete, _CHUNK)):
            cursor.executemany(statement, chunk)
    cursor.close()
    if tx.connection.dialect.name == "postgresql" and "id" in table.c:
        greatest = f"(SELECT max(id) FROM {table.name})"
        tx.execute(text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), {greatest})"))


def _copy(cursor: Any, statement: str, rows: Iterator[tuple[Any, ...]]) -> None:
    with cursor.copy(statement) as copy:
        while chunk := list(itertools.islice(rows, _CHUNK)):
            lines = ["\t".join(["\\N" if value is None else str(value) for value in row]) for row in chunk]
            copy.write("\n".join(lines) + "\n")


@contextmanager
def without_indexes(tx: Tx, tables: Collection[Table]) -> Iterator[None]:
    """Within the block the tables have no indexes but their unique ones, and on PostgreSQL no foreign keys: made once
    for all rows, they cost a fraction of what they cost row by row. MariaDB would commit half way: there they stay."""
    dialect = tx.connection.dialect.name
    if dialect not in ("sqlite", "postgresql"):
        yield
        return
    indexes = [index for table in tables for index in sorted(table.indexes, key=lambda one: str(one.name))]
    keys = [key for table in tables for key in table.foreign_key_constraints] if dialect == "postgresql" else []
    for key in keys:
        tx.execute(DropConstraint(key))
    for index in indexes:
        tx.execute(DropIndex(index))
    yield
    for index in indexes:
        tx.execute(CreateIndex(index))
    for key in keys:
        tx.execute(AddConstraint(key))


@contextmanager
def written_at_once(database: Database) -> Iterator[None]:
    """Within the block SQLite asks of no row whether what it points at is there, and keeps a GiB of pages in memory:
    indexes that are written in no order are many times larger than what it keeps otherwise."""
    if not database.is_sqlite:
        yield
        return
    # The only connection that writes: it keeps what it is told here. Within a transaction it would not listen.
    _pragmas(database, "foreign_keys=OFF", f"cache_size=-{1 << 20}")
    try:
        yield
    finally:
        _pragmas(database, "foreign_keys=ON", "cache_size=-16000")


def _pragmas(database: Database, *settings: str) -> None:
    connection = database.writing.raw_connection()
    try:
        cursor: Any = connection.cursor()
        for setting in settings:
            cursor.execute(f"PRAGMA {setting}")
        cursor.close()
    finally:
        connection.close()


def analyze(tx: Tx) -> None:
    """Let PostgreSQL look at what it holds, as it does by itself in time. SQLite never does unless it is asked to, and
    then takes an index of keys that most rows lack for a bad one: we do not ask."""
    if tx.connection.dialect.name == "postgresql":
        tx.execute(text("ANALYZE"))
