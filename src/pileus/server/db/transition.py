"""The compare-and-set that carries out a transition table."""

from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Table, update

from pileus.server.db.transaction import Tx
from pileus.server.domain.transitions import Transitions

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
    statement = update(table).where(table.c.id == row_id, table.c.state.in_([str(s) for s in states]))
    return tx.execute(statement.values(state=str(new), **values)).rowcount == 1
