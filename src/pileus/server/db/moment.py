"""The database's own clock, for leases: servers of a farm must agree on when one has run out.

SQLite has no clock but the machine's, and a test's clock stands for all clocks, so both give the unit of work's time.
"""

from functools import cache

from sqlalchemy import BigInteger, ColumnElement, bindparam, cast, func, literal

from pileus.server.db.clock import SystemClock
from pileus.server.db.transaction import Tx

NOW = "database_now"
"""Name of the parameter that `now_expression` has for databases without a clock of their own."""


def clock_of(tx: Tx) -> str:
    """Whose clock counts: the dialect of a database with one of its own, or "" for the server's."""
    dialect = tx.connection.dialect.name
    own = isinstance(tx.clock, SystemClock) and dialect in ("postgresql", "mysql", "mariadb")
    return dialect if own else ""


@cache
def now_expression(clock: str) -> ColumnElement[int]:
    """Milliseconds since the epoch at the statement, for `clock_of`; with "" it is the parameter `NOW`."""
    match clock:
        case "postgresql":
            return cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
        case "mysql" | "mariadb":
            return cast(func.unix_timestamp(func.now(3)) * 1000, BigInteger)
        case _:
            return bindparam(NOW, type_=BigInteger)


def now_parameter(tx: Tx) -> dict[str, int]:
    """The parameter that a statement with `now_expression` wants, if any."""
    return {} if clock_of(tx) else {NOW: tx.now}


def database_now(tx: Tx) -> ColumnElement[int]:
    """The time as the database sees it, for statements that are built once and run once."""
    clock = clock_of(tx)
    return now_expression(clock) if clock else literal(tx.now, BigInteger)
