"""One server of the farm at a time: for what happens before tables exist, and spans several transactions.

The lock is the database's and goes with the connection, so a server that dies gives it back. Servers that share a
SQLite file share a file beside it, too.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import BigInteger, Connection, literal, select, text
from sqlalchemy import func as sql

from pileus.server.db.dialect import MYSQL
from pileus.server.db.transaction import Database

WAIT_SECONDS = 600
_KEY = 0x50696C657573
"""PostgreSQL's advisory locks are per database and have numbers for names."""


class StillBusy(TimeoutError):
    """Another server has held the lock for longer than `WAIT_SECONDS`."""


@contextmanager
def exclusively(database: Database) -> Iterator[None]:
    """Wait until no other server of the farm is in such a block, at most `WAIT_SECONDS`. Raises StillBusy.

    It takes no part in any transaction; the block's own are on other connections.
    """
    if database.is_sqlite:
        with _file(database):
            yield
        return
    with database.reading.connect() as connection:
        _take(connection)
        try:
            yield
        finally:
            # The connection goes, and the lock with it: nothing of either gets back into the pool.
            connection.invalidate()


@contextmanager
def _file(database: Database) -> Iterator[None]:
    path = str(database.url.database or "")
    if path in ("", ":memory:"):
        yield
        return
    try:
        lock = open(f"{path}.lock", "ab")  # noqa: SIM115 (closed below, and with it goes the lock)
    except OSError:
        # A place where nothing can be written: the database itself tells it better.
        yield
        return
    with lock:
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise StillBusy(f"another server has been starting for {WAIT_SECONDS} s") from None
                time.sleep(0.05)
        yield


def _take(connection: Connection) -> None:
    if connection.dialect.name in MYSQL:
        # Named locks are the server's: the database's name keeps farms on one server apart.
        name = sql.concat("pileus.", sql.left(sql.sha1(sql.database()), 40))
        if connection.execute(select(sql.get_lock(name, WAIT_SECONDS))).scalar() != 1:
            raise StillBusy(f"another server has been starting for {WAIT_SECONDS} s")
        return
    connection.execute(text(f"SET lock_timeout = '{WAIT_SECONDS}s'"))
    connection.execute(select(sql.pg_advisory_lock(literal(_KEY, BigInteger))))
