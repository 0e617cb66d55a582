"""Rolls: the sorted keys of all rows that a long list shows, kept in this process. A page is a slice, a count a length.

Exact, and never older than the unit of work that asks. Whoever lets a row begin or cease to be in a list calls
`changed`; at the end of that transaction the table's generation is raised and the row marked with it (`roll`). A reader
whose roll is of an older generation looks at the rows marked since. The generation's row is locked until the commit,
so marks become visible in their order. Conditions must be on columns that never change, or whose changes are marked.
"""

import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

from sqlalchemy import ColumnElement, Table, and_, bindparam, case, select, update

from pileus.server.db.generation import bump, current
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.control import generation
from pileus.server.db.transaction import Tx

LONG = 5000
"""From so many matches on a list has a roll; shorter ones are counted in less time than it takes to keep one."""

_MOST_KEYS = 4_000_000
"""Keys of all rolls of a database together, 8 bytes each: the least used rolls go first."""

_MOST_CHANGES = 5000
"""With more changes at once a roll is written anew."""

_STRIDE = 50_000
_CHUNK = 500


def changed(tx: Tx, table: Table, key: int) -> None:
    """Say that a row began or ceased to be in some list."""
    noted: dict[Table, set[int]] | None = tx.memo.get("roll")
    if noted is None:
        noted = tx.memo["roll"] = {}
        tx.before_commit(lambda: _mark(tx))
    noted.setdefault(table, set()).add(key)


def page_keys(
    tx: Tx, table: Table, where: Collection[ColumnElement[bool]], name: Hashable, *, offset: int, limit: int
) -> tuple[Sequence[int], int] | None:
    """Keys of a page and the number of all matches; None if there is no roll yet. `name` stands for the conditions."""
    # What this very transaction has changed is not marked yet.
    if tx.writable:
        return None
    roll = _rolls(tx).find((table.name, name))
    if roll is None:
        return None
    with roll.lock:
        _catch_up(tx, table, where, roll)
        return roll.keys[offset : offset + limit], len(roll.keys)


def write(tx: Tx, table: Table, where: Collection[ColumnElement[bool]], name: Hashable) -> None:
    """Begin a roll: one walk along an index, whatever its length."""
    if tx.writable:
        return
    # Read before the keys: they are then at least as new as what they are said to be.
    roll = _Roll(current(tx, _generation(table)))
    _walk(tx, table, where, roll)
    _rolls(tx).keep((table.name, name), roll)


@dataclass
class _Roll:
    n: int
    keys: "array[int]" = field(default_factory=lambda: array("q"))
    lock: threading.Lock = field(default_factory=threading.Lock)
    _marked: Prepared | None = None

    def marked(self, table: Table, where: Collection[ColumnElement[bool]]) -> Prepared:
        """Keys that are marked since generation `older`, each with whether it is in the list now."""
        if self._marked is None:
            # A value, not a condition: an index of what is live must not look better than that of the marks.
            inside = case((and_(*where), 1), else_=0)
            since = table.c.roll > bindparam("older")
            self._marked = Prepared(select(table.c.id, inside).where(since).limit(_MOST_CHANGES + 1))
        return self._marked


class _Rolls:
    """The rolls of one database, the least used first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, _Roll] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, name: Hashable) -> _Roll | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def keep(self, name: Hashable, roll: _Roll) -> None:
        with self._lock:
            self._kept[name] = roll
            self._kept.move_to_end(name)
            while len(self._kept) > 1 and sum(len(each.keys) for each in self._kept.values()) > _MOST_KEYS:
                self._kept.popitem(last=False)


def _rolls(tx: Tx) -> _Rolls:
    rolls: _Rolls = tx.kept.setdefault("rolls", _Rolls())
    return rolls


def _generation(table: Table) -> str:
    return f"roll:{table.name}"


def _catch_up(tx: Tx, table: Table, where: Collection[ColumnElement[bool]], roll: _Roll) -> None:
    n = current(tx, _generation(table))
    if n <= roll.n:
        return
    marked = roll.marked(table, where).tuples(tx, older=roll.n)
    if len(marked) > _MOST_CHANGES:
        _walk(tx, table, where, roll)
    else:
        for key, there in sorted(marked):
            _set(roll.keys, key, there=bool(there))
    roll.n = n


def _set(keys: "array[int]", key: int, *, there: bool) -> None:
    place = bisect_left(keys, key)
    found = place < len(keys) and keys[place] == key
    if there and not found:
        keys.insert(place, key)
    elif found and not there:
        del keys[place]


def _walk(tx: Tx, table: Table, where: Collection[ColumnElement[bool]], roll: _Roll) -> None:
    """All keys, in strides: neither side holds a million rows at once."""
    keys = array("q")
    while True:
        further = (table.c.id > keys[-1],) if keys else ()
        found = select(table.c.id).where(*where, *further).order_by(table.c.id).limit(_STRIDE)
        before = len(keys)
        # The driver's own rows: a million keys are not worth a million result rows of SQLAlchemy.
        keys.extend(chain.from_iterable(tx.execute(found).cursor.fetchall()))
        if len(keys) - before < _STRIDE:
            break
    roll.keys = keys


def _mark(tx: Tx) -> None:
    noted: dict[Table, set[int]] = tx.memo["roll"]
    for table in sorted(noted, key=lambda each: each.name):
        bump(tx, _generation(table))
        n = _NEWEST.scalar(tx, the_name=_generation(table))
        keys = sorted(noted[table])
        for begin in range(0, len(keys), _CHUNK):
            _marking(table).changed(tx, some=keys[begin : begin + _CHUNK], n=n)


_NEWEST = Prepared(select(generation.c.n).where(generation.c.name == bindparam("the_name")))


@cache
def _marking(table: Table) -> Prepared:
    return Prepared(update(table).where(table.c.id.in_(bindparam("some", expanding=True))).values(roll=bindparam("n")))
