"""The database's own clock, for leases: servers of a farm must agree on when one has run out.

SQLite has no clock but the machine's, and a test's clock stands for all clocks, so both give the unit of work's time.
"""

from sqlalchemy import BigInteger, ColumnElement, cast, func, literal

from pileus.server.db.clock import SystemClock
from pileus.server.db.transaction import Tx


def database_now(tx: Tx) -> ColumnElement[int]:
    """An SQL expression: milliseconds since the epoch as the database sees it at the statement."""
    dialect = tx.connection.dialect.name
    if isinstance(tx.clock, SystemClock):
        if dialect == "postgresql":
            return cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
        if dialect in ("mysql", "mariadb"):
            return cast(func.unix_timestamp(func.now(3)) * 1000, BigInteger)
    return literal(tx.now, BigInteger)
