"""Statements that are built and compiled once and then run through the driver's cursor.

For the hottest paths: building a small statement and computing its cache key costs twenty times what SQLite needs to
run it. The SQL is SQLAlchemy's own, so every dialect gets what it would get; types that convert values are refused.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    Column,
    CompoundSelect,
    Connection,
    Delete,
    Float,
    Insert,
    RowMapping,
    Select,
    Table,
    Update,
    insert,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

from pileus.server.db import changes
from pileus.server.db.transaction import Tx, note_conflict

Row = RowMapping
"""A row by column names. It is a plain dict; the type says that it is read like any other row."""


@dataclass
class _Form:
    """A statement as one dialect says it. `defaults` are values of parameters that nobody passes."""

    sql: str
    order: tuple[str, ...] | None
    """Names in the order of the question marks; None when the driver takes names."""
    defaults: dict[str, Any]
    made: tuple[tuple[str, Any], ...]
    """Columns that are given a fresh value each time, with what makes it."""
    followed: tuple[str, str] | None = None
    """What of a table whose changes are logged it changes: see `changes.followed_by`."""
    names: tuple[str, ...] = ()
    """Names of the columns it answers, known once rows were asked for by them."""
    lists: tuple[str, ...] = ()
    """Parameters that are lists. The statement is then written anew for each room that a list may need."""
    rooms: "dict[tuple[int, ...], _Form]" = field(default_factory=dict)
    """By how many values each list has room for."""
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of a form with room: by list, the names of the parameters that take its values."""


class Prepared:
    """One statement. Values are passed by the names of its `bindparam`s; all must be given.

    A `bindparam` that is `expanding` takes a collection of values, for IN and NOT IN.
    """

    def __init__(self, statement: Select[Any] | CompoundSelect[Any] | Update | Delete) -> None:
        self._statement: Select[Any] | CompoundSelect[Any] | Update | Delete | Insert = statement
        self._forms: dict[str, _Form] = {}

    def all(self, tx: Tx, **values: Any) -> list[Row]:
        """All rows."""
        cursor, form = self._run(tx, values)
        names = _names(form, cursor)
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        cursor.close()
        return cast(list[Row], rows)

    def tuples(self, tx: Tx, **values: Any) -> list[tuple[Any, ...]]:
        """All rows, each as a tuple of its columns."""
        cursor, _ = self._run(tx, values)
        found = list(cursor.fetchall())
        cursor.close()
        return found

    def one(self, tx: Tx, **values: Any) -> Row | None:
        """The first row, or None: for statements that can find one at most."""
        cursor, form = self._run(tx, values)
        row = cursor.fetchone()
        names = _names(form, cursor)
        cursor.close()
        return None if row is None else cast(Row, dict(zip(names, row, strict=True)))

    def scalar(self, tx: Tx, **values: Any) -> Any:
        """First column of the first row, or None."""
        cursor, _ = self._run(tx, values)
        row = cursor.fetchone()
        cursor.close()
        return None if row is None else row[0]

    def scalars(self, tx: Tx, **values: Any) -> list[Any]:
        """First column of all rows."""
        cursor, _ = self._run(tx, values)
        found = [row[0] for row in cursor.fetchall()]
        cursor.close()
        return found

    def changed(self, tx: Tx, **values: Any) -> int:
        """How many rows an UPDATE or DELETE met."""
        cursor, _ = self._run(tx, values)
        count = int(cursor.rowcount)
        cursor.close()
        return count

    def _run(self, tx: Tx, asked: Mapping[str, Any]) -> tuple[Any, _Form]:
        connection = tx.connection
        values = asked
        form = self._forms.get(connection.dialect.name) or self._form(connection.dialect)
        if form.lists:
            form, values = self._with_room(form, connection.dialect, values)
        given = {**form.defaults, **values}
        for name, make in form.made:
            if name not in values:
                given[name] = make()
        sent: Any = given if form.order is None else [given[name] for name in form.order]
        cursor = _execute(connection, form.sql, sent)
        if form.followed is not None and cursor.rowcount != 0:
            subject, parameter = form.followed
            # A list is known by its own name only as it was asked with.
            known = asked if parameter in asked else given
            changes.noted(connection, subject, known[parameter] if parameter else 0)
        return cursor, form

    def _form(self, dialect: Dialect) -> _Form:
        return self._forms.setdefault(dialect.name, _form(self._statement, dialect))

    def _with_room(self, form: _Form, dialect: Dialect, values: Mapping[str, Any]) -> tuple[_Form, Mapping[str, Any]]:
        """The form for lists of these lengths, and the values by the names it has for them."""
        filled = {name: _filled(values[name]) for name in form.lists}
        lengths = {name: len(each) for name, each in filled.items()}
        room = tuple(lengths.values())
        fitting = form.rooms.get(room) or form.rooms.setdefault(room, _form(self._statement, dialect, rooms=lengths))
        # Drivers that take names look at every value they are given, asked for or not.
        given = {name: value for name, value in values.items() if name not in filled}
        for name, each in filled.items():
            given.update(zip(fitting.places[name], each, strict=True))
        return fitting, given


class Insertion(Prepared):
    """An INSERT of one row, with values for the named columns."""

    def __init__(self, table: Table, *columns: str) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._table = table
        self._columns = columns

    def run(self, tx: Tx, **values: Any) -> None:
        """Insert."""
        cursor, _ = self._run(tx, values)
        cursor.close()

    def key(self, tx: Tx, **values: Any) -> int:
        """Insert into a table with an integer key; the key of the new row."""
        cursor, _ = self._run(tx, values)
        key = cursor.fetchone()[0] if tx.connection.dialect.name == "postgresql" else cursor.lastrowid
        cursor.close()
        return int(key)

    def _form(self, dialect: Dialect) -> _Form:
        statement = insert(self._table).inline()
        if dialect.name == "postgresql":
            statement = statement.returning(*self._table.primary_key.columns)
        return self._forms.setdefault(dialect.name, _form(statement, dialect, self._columns))


def _names(form: _Form, cursor: Any) -> tuple[str, ...]:
    if not form.names:
        names = tuple(column[0] for column in cursor.description)
        if len(set(names)) != len(names):
            raise ValueError(f"two columns of one name: {form.sql}")
        form.names = names
    return form.names


def _filled(values: Collection[Any]) -> list[Any]:
    """The values, and the last again until there is a power of two: so few lengths have statements of their own."""
    found = list(values)
    return found + found[-1:] * ((1 << (len(found) - 1).bit_length()) - len(found)) if found else found


def _form(
    statement: Any,
    dialect: Dialect,
    columns: Sequence[str] | None = None,
    *,
    rooms: Mapping[str, int] | None = None,
) -> _Form:
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 (what every statement compiles to)
    for bind in compiled.binds.values():
        # Lists are passed as they are: what may convert is their entries.
        given = bind.type.item_type if isinstance(bind.type, ARRAY) else bind.type
        if given.dialect_impl(dialect).bind_processor(dialect) is not None:
            raise TypeError(f"parameter {bind.key} has a type that converts values")
    for entry in compiled._result_columns or ():
        # Floats are what drivers give; dialects convert what might be decimals.
        is_float = isinstance(entry.type, Float) and not entry.type.asdecimal
        if not is_float and entry.type.dialect_impl(dialect).result_processor(dialect, None) is not None:
            raise TypeError(f"column {entry.name} has a type that converts values")
    # Lists of constants are written out; what is passed with each run is not known yet.
    wanted = [bind.key for bind in compiled.binds.values() if bind.required]
    lists = tuple(bind.key for bind in compiled.binds.values() if bind.required and bind.expanding)
    known = rooms or dict.fromkeys(lists, 0)
    state = compiled.construct_expanded_state(
        {**dict.fromkeys(wanted), **{name: [None] * known[name] for name in lists}}
    )
    made: list[tuple[str, Any]] = []
    places = {name: tuple(state.parameter_expansion[name]) for name in lists}
    wanted += [place for each in places.values() for place in each]
    defaults = {name: value for name, value in state.parameters.items() if name not in wanted}
    for column in compiled.insert_prefetch:
        constant, make = _default(column)
        if make is None:
            defaults[column.key] = constant
        else:
            made.append((column.key, make))
    order = None if state.positiontup is None else tuple(state.positiontup)
    followed = changes.followed_by(statement)
    unsized = lists if rooms is None else ()
    return _Form(state.statement, order, defaults, tuple(made), followed, lists=unsized, places=places)


def _default(column: Column[Any]) -> tuple[Any, Any]:
    """What a column is given when nobody says: a constant, or what makes a value."""
    default: Any = column.default
    if default.is_scalar:
        return default.arg, None
    if default.is_callable:
        return None, lambda: default.arg(None)
    raise TypeError(f"column {column.name} has a default that the database computes")


def _execute(connection: Connection, sql: str, sent: Sequence[Any] | Mapping[str, Any]) -> Any:
    if not connection.in_transaction():
        connection.begin()
    cursor: Any = connection.connection.cursor()
    for heard in connection.dispatch.before_cursor_execute:
        heard(connection, cursor, sql, sent, None, False)
    try:
        cursor.execute(sql, sent)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _wrapped(connection, sql, error) from error
    return cursor


def _wrapped(connection: Connection, sql: str, error: Exception) -> BaseException:
    """As SQLAlchemy would surface it: conflicts are known by it, and a dead connection leaves the pool."""
    dialect = connection.dialect
    note_conflict(connection, error)
    lost = dialect.is_disconnect(error, connection.connection, None)  # type: ignore[arg-type]
    if lost:
        connection.invalidate(error)
    return DBAPIError.instance(
        sql,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )
