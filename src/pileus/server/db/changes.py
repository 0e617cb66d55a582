"""The log of changed rows: every statement on a followed table is noted, whoever wrote it, and written down at commit.

A view in memory reads the log from where it stopped, then only the rows that it names. A statement whose rows cannot be
told from its key logs `EVERYTHING`. Prepared statements tell it themselves (`followed_by`, `noted`); what is written in
any other way is not seen: whoever believes a view must be able to ask the database too.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    CursorResult,
    Delete,
    Engine,
    Insert,
    Table,
    Update,
    delete,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList

from pileus.server.db.tables.host import (
    host,
    host_capacity,
    host_tag,
    storage_pool,
    storage_pool_host,
    storage_pool_tag,
)
from pileus.server.db.tables.place import cluster, pod
from pileus.server.db.tables.row_change import row_change

HOST, ROOM, POOL, POOL_TAGS, USES, CLUSTER, POD = "host", "room", "pool", "pool_tags", "uses", "cluster", "pod"
"""ROOM is what is claimed of a host; USES names a pool of which hosts have begun or ended use."""

Change = tuple[str, int]
"""Subject and key of a row."""

EVERYTHING: Change = ("*", 0)

MOST_ROWS = 200
"""A statement on more rows than this logs `EVERYTHING`."""


class _Followed(NamedTuple):
    """Columns that name the changed subject, best first, and columns whose change is of no interest."""

    keys: tuple[tuple[str, str], ...]
    ignored: frozenset[str] = frozenset()


_FOLLOWED: Mapping[Table, _Followed] = {
    host: _Followed(
        (("id", HOST),),
        frozenset({"heard_at", "disconnected_at", "server", "address", "url", "version", "capabilities"}),
    ),
    host_capacity: _Followed((("host_id", ROOM),)),
    host_tag: _Followed((("host_id", HOST),)),
    storage_pool: _Followed((("id", POOL),), frozenset({"available_bytes", "capacity_bytes"})),
    storage_pool_tag: _Followed((("pool_id", POOL_TAGS),)),
    storage_pool_host: _Followed((("host_id", HOST), ("pool_id", USES))),
    cluster: _Followed((("id", CLUSTER),)),
    pod: _Followed((("id", POD),)),
}

_PENDING = "row_changes"


def note(engine: Engine) -> None:
    """From now on, note what the engine's connections change."""
    event.listen(engine, "after_execute", _executed)


def pending(connection: Connection) -> frozenset[Change]:
    """What the connection's transaction has changed so far."""
    return frozenset(connection.info.get(_PENDING, ()))


def forget(connection: Connection) -> None:
    """A transaction begins: what an earlier one left was rolled back."""
    connection.info.pop(_PENDING, None)


def write_down(connection: Connection) -> None:
    """Write the transaction's changes to the log; the last thing before its commit."""
    found: set[Change] | None = connection.info.pop(_PENDING, None)
    if not found:
        return
    if EVERYTHING in found:
        found = {EVERYTHING}
    connection.execute(_LOGGING, [{"subject": subject, "row_id": row_id} for subject, row_id in sorted(found)])


_LOGGING = insert(row_change)


def trim(connection: Connection, *, keep: int) -> int:
    """Delete all but the newest `keep` numbers of the log; returns how many rows went. The newest row always stays."""
    newest = connection.execute(select(func.max(row_change.c.id))).scalar() or 0
    return connection.execute(delete(row_change).where(row_change.c.id <= newest - max(keep, 1))).rowcount


def followed_by(statement: Any) -> tuple[str, str] | None:
    """For a prepared statement on a followed table: the subject it changes, and the parameter that names the row or a
    list of rows ("" if none does). None for a statement that is of no interest."""
    if not isinstance(statement, Insert | Update | Delete):
        return None
    followed = _FOLLOWED.get(cast(Table, statement.table))
    if followed is None or (isinstance(statement, Update) and _of_no_interest(statement, followed)):
        return None
    if not isinstance(statement, Insert):
        for name, subject in followed.keys:
            for clause in _conjuncts(statement.whereclause):
                if _is_key(clause, statement.table.c[name]):
                    return subject, str(clause.right.key)
    return EVERYTHING[0], ""


def noted(connection: Connection, subject: str, row_ids: int | Collection[int]) -> None:
    """A prepared statement has changed a row, or some of these."""
    found: set[Change] = connection.info.setdefault(_PENDING, set())
    if isinstance(row_ids, Collection):
        found.update([EVERYTHING] if len(row_ids) > MOST_ROWS else [(subject, int(row_id)) for row_id in row_ids])
    else:
        found.add((subject, int(row_ids)))


def _is_key(clause: ColumnElement[Any], key: ColumnElement[Any]) -> bool:
    if (
        not isinstance(clause, BinaryExpression)
        or clause.left is not key
        or not isinstance(clause.right, BindParameter)
    ):
        return False
    if clause.right.expanding:
        return clause.operator is operators.in_op and clause.right.required
    return clause.operator is operators.eq


def _executed(
    connection: Connection,
    statement: Any,
    many: Any,
    parameters: Any,
    _options: Any,
    result: CursorResult[Any],
) -> None:
    if not isinstance(statement, Insert | Update | Delete):
        return
    followed = _FOLLOWED.get(cast(Table, statement.table))
    if followed is None:
        return
    if isinstance(statement, Insert):
        found = _inserted(statement, followed, many, parameters, result)
    else:
        if result.rowcount == 0 or (isinstance(statement, Update) and _of_no_interest(statement, followed)):
            return
        found = _matched(statement, followed) if not many and not parameters else None
    noted: set[Change] = connection.info.setdefault(_PENDING, set())
    noted.update([EVERYTHING] if found is None or len(found) > MOST_ROWS else found)


def _inserted(
    statement: Insert, followed: _Followed, many: Any, parameters: Any, result: CursorResult[Any]
) -> list[Change] | None:
    rows: Iterable[Mapping[str, Any]] = many or ([parameters] if parameters else [])
    for name, subject in followed.keys:
        ids = [row.get(name) for row in rows]
        if ids and None not in ids:
            return [(subject, int(i)) for i in ids if i is not None]
    if many or statement.select is not None:
        return None
    key = result.inserted_primary_key
    if key is None:
        return None
    found = key._mapping
    return next(([(subject, int(found[name]))] for name, subject in followed.keys if found.get(name) is not None), None)


def _of_no_interest(statement: Update, followed: _Followed) -> bool:
    changed = {getattr(column, "name", column) for column in statement._values or ()}
    return bool(changed) and changed <= followed.ignored


def _matched(statement: Update | Delete, followed: _Followed) -> list[Change] | None:
    """The rows that a WHERE names by key; None when it does not."""
    table = statement.table
    for name, subject in followed.keys:
        for clause in _conjuncts(statement.whereclause):
            ids = _ids(clause, table.c[name])
            if ids is not None:
                return [(subject, int(i)) for i in ids]
    return None


def _conjuncts(where: ColumnElement[Any] | None) -> Iterable[ColumnElement[Any]]:
    if where is None:
        return
    if isinstance(where, BooleanClauseList) and where.operator is operators.and_:
        for clause in where.clauses:
            yield from _conjuncts(clause)
    else:
        yield where


def _ids(clause: ColumnElement[Any], key: ColumnElement[Any]) -> list[Any] | None:
    if not isinstance(clause, BinaryExpression) or clause.left is not key:
        return None
    value = clause.right
    if not isinstance(value, BindParameter):
        return None
    given = value.effective_value
    if clause.operator is operators.eq and given is not None:
        return [given]
    if clause.operator is operators.in_op and isinstance(given, list | tuple):
        return list(given)
    return None
