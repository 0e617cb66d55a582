"""The compare-and-set that carries out a transition table."""

from collections.abc import Collection
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import ClauseElement, Table, bindparam, select, update

from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import roll
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.domain.transitions import Transitions
from pileus.server.domain.vm import OUT_OF_SIGHT

S = TypeVar("S", bound=StrEnum)


def transition(
    tx: Tx, table: Table, row_id: int, transitions: Transitions[S], new: S, *, frm: S | None = None, **values: Any
) -> bool:
    """Move a row to state `new`, and set `values` with it. False when it was in no state that may precede `new`.

    With `frm`, only from that state; a pair the table does not allow is a programming error.
    """
    if frm is not None and not transitions.allows(frm, new):
        raise ValueError(f"{table.name} cannot go from {frm} to {new}")
    states = (frm,) if frm is not None else transitions.before(new)
    moved = _moved(tx, table, row_id, tuple(str(state) for state in states), str(new), values)
    if moved:
        _tell_rolls(tx, table, row_id, states, new)
    return moved


def _moved(tx: Tx, table: Table, row_id: int, states: tuple[str, ...], new: str, values: dict[str, Any]) -> bool:
    if any(isinstance(value, ClauseElement) for value in values.values()):
        statement = update(table).where(table.c.id == row_id, table.c.state.in_(states))
        return tx.execute(statement.values(state=new, **values)).rowcount == 1
    given = {f"new_{name}": value for name, value in values.items()}
    return _moving(table, states, tuple(values)).changed(tx, the_id=row_id, new_state=new, **given) == 1


@cache
def _moving(table: Table, states: tuple[str, ...], columns: tuple[str, ...]) -> Prepared:
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("state", *columns)}
    return Prepared(update(table).where(table.c.id == bindparam("the_id"), table.c.state.in_(states)).values(values))


def transition_all(
    tx: Tx, table: Table, row_ids: Collection[int], transitions: Transitions[S], new: S, **values: Any
) -> list[int]:
    """Move many rows to state `new` at once. Returns the ids of those that went, in order; a thousand ids at most."""
    before = tuple(str(state) for state in transitions.before(new))
    going: list[int] = _locking(table, before).scalars(tx, row_ids=list(row_ids))
    if going:
        # Locked above: nobody has moved them in between.
        given = {f"new_{name}": value for name, value in values.items()}
        _moving_all(table, tuple(values)).changed(tx, row_ids=going, new_state=str(new), **given)
        for row_id in going:
            _tell_rolls(tx, table, row_id, transitions.before(new), new)
    return going


@cache
def _locking(table: Table, states: tuple[str, ...]) -> Prepared:
    there = table.c.id.in_(bindparam("row_ids", expanding=True)), table.c.state.in_(states)
    return Prepared(select(table.c.id).where(*there).order_by(table.c.id).with_for_update())


@cache
def _moving_all(table: Table, columns: tuple[str, ...]) -> Prepared:
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("state", *columns)}
    return Prepared(update(table).where(table.c.id.in_(bindparam("row_ids", expanding=True))).values(values))


def _tell_rolls(tx: Tx, table: Table, row_id: int, before: Collection[S], new: S) -> None:
    """Destroyed guests are in fewer lists: whoever may have crossed that line is looked at again."""
    if table is vm and any(state in OUT_OF_SIGHT for state in (*before, new)):
        roll.changed(tx, table, row_id)
