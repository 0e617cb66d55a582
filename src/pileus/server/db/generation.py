"""Caches that never answer with another server's past: each is checked against a generation row once per unit of work.

The generation is read before what it labels, so a label is never newer than the value under it.
"""

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.control import generation as generations
from pileus.server.db.transaction import Tx

T = TypeVar("T")

_ALL = Prepared(select(generations))

_RAISING = Prepared(
    update(generations).where(generations.c.name == bindparam("the_name")).values(n=generations.c.n + 1)
)

_MEMO = "generations"
_CHANGED = -1


def current(tx: Tx, name: str) -> int:
    """The generation of a cached noun, read once per unit of work; -1 when this very unit of work has changed it."""
    known: dict[str, int] | None = tx.memo.get(_MEMO)
    if known is None:
        known = {str(row["name"]): int(row["n"]) for row in _ALL.all(tx)}
        tx.memo[_MEMO] = known
    return known.get(name, 0)


def bump(tx: Tx, name: str) -> None:
    """Say that a cached noun has changed; every server sees it in its next unit of work after the commit."""
    current(tx, name)
    if _RAISING.changed(tx, the_name=name) == 0:
        try:
            with tx.connection.begin_nested():
                tx.execute(insert(generations).values(name=name, n=1))
        except IntegrityError:
            _RAISING.changed(tx, the_name=name)
    tx.memo[_MEMO][name] = _CHANGED


class Cached(Generic[T]):
    """A value loaded from the database and kept while its generation stands."""

    def __init__(self, name: str, load: Callable[[Tx], T]) -> None:
        self.name = name
        self._load = load
        self._kept: WeakKeyDictionary[Engine, tuple[int, T]] = WeakKeyDictionary()

    def get(self, tx: Tx) -> T:
        """The value as of this unit of work."""
        n = current(tx, self.name)
        if n == _CHANGED:
            return self._load(tx)
        engine = tx.connection.engine
        kept = self._kept.get(engine)
        if kept is not None and kept[0] == n:
            return kept[1]
        value = self._load(tx)
        self._kept[engine] = (n, value)
        return value
