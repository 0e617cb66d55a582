"""Conflicts between units of work: databases with several writers end a deadlock by rolling one of them back.

Nothing of that unit was kept and nothing is wrong with it: it is called again from its beginning, in a new transaction.
So is one that lost a race: what it saw free was taken when it came to take it. Seen again it is taken, and the caller
chooses another or refuses in the right words. Known by the driver's codes, never by text.
"""

import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from pileus.server.meter import Counter

CONFLICTS = Counter(
    "pileus_database_conflicts_total", "Units of work that lost a conflict with another one and were called again"
)

T = TypeVar("T")

TRIES = 8
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.25

_SQLSTATES = frozenset({"40001", "40P01"})
"""PostgreSQL: serialization failure, deadlock."""
_NUMBERS = frozenset({1213, 1020})
"""MySQL and MariaDB: deadlock, row changed since the snapshot."""

_LOST_SQLSTATES = frozenset({"23505", "23503"})
"""PostgreSQL: unique, foreign key. SQLite has one writer: there they tell of a mistake, never of a race."""
_LOST_NUMBERS = frozenset({1062, 1451, 1452})
"""MySQL and MariaDB: duplicate key, row is referenced, referenced row is gone."""


def is_conflict(error: BaseException | None) -> bool:
    """Whether the error, or one it was raised in the wake of, tells of a conflict: what is called again may succeed.

    MariaDB's rollback takes savepoints with it, so what surfaces may be the complaint about a savepoint that is gone.
    """
    for _ in range(8):
        if error is None:
            return False
        if isinstance(error, DBAPIError) and (says_conflict(error.orig) or _says_race(error.orig)):
            return True
        error = error.__cause__ or error.__context__
    return False


def says_conflict(orig: BaseException | None) -> bool:
    """Whether a driver's error says that the transaction was rolled back to end a conflict."""
    return not _codes(orig).isdisjoint(_SQLSTATES | _NUMBERS)


def _says_race(orig: BaseException | None) -> bool:
    return not _codes(orig).isdisjoint(_LOST_SQLSTATES | _LOST_NUMBERS)


def _codes(orig: BaseException | None) -> set[object]:
    """The SQLSTATE; and MySQL's number, which says more, and comes first in what pymysql raises."""
    arguments: tuple[object, ...] = getattr(orig, "args", ())
    number = arguments[0] if arguments and isinstance(arguments[0], int) else None
    return {getattr(orig, "sqlstate", None), number} - {None}


def retried(work: Callable[[], T], *, tries: int = TRIES) -> T:
    """What `work` returns; called again after a conflict, `tries` times at most. It must hold whole units of work."""
    for attempt in range(1, tries):
        try:
            return work()
        except DBAPIError as error:
            if not is_conflict(error):
                raise
        CONFLICTS.add()
        longest = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
        time.sleep(longest * secrets.randbelow(1000) / 1000)
    return work()
