"""A database in memory for one thread: real SQL on real SQLite, without files, pools or anybody to wait for.

One connection serves all units of work of a run. That is sound because a run has one thread and units of work never
lie within each other; one that tries is an error here, as it would be a deadlock or a wrong answer elsewhere.
Every run has an engine of its own, so that nothing cached for another run answers in it; what was compiled is shared.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from pileus.server.db import changes, transaction
from pileus.server.db.clock import Clock
from pileus.server.db.transaction import Database, Tx
from pileus.testing.clock import FakeClock
from pileus.testing.database import fill
from pileus.testing.simulation.sealed import sealed

KEPT_STATEMENTS = 4096
"""Prepared statements that SQLite's driver keeps: more than a run has different ones."""


class Nested(RuntimeError):
    """A unit of work began within another."""


class MemoryDatabase(Database):
    """See the module. Tells which tables were written to, so that who found nothing in one need not look again."""

    def __init__(self, clock: Clock) -> None:
        self.written: Counter[str] = Counter()
        """By name of a table, how many statements wrote to it."""
        super().__init__("sqlite://", clock)
        # Heard at the cursor, where prepared statements pass too.
        event.listen(self.writing, "before_cursor_execute", self._note)
        self._connection: Connection = self.writing.connect()
        self._driver = _driver(self._connection)
        self._open = False

    def _engine(self, pool_size: int, *, writing: bool) -> Engine:
        del pool_size, writing
        return _shared_engine().execution_options(run=id(self))

    def _note(self, _connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        table = _written_by(statement)
        if table is not None:
            self.written[table] += 1

    def hold(self, image: sqlite3.Connection) -> None:
        """Hold what `image` holds, and nothing else."""
        image.backup(self._driver)
        self.kept.clear()

    def image(self) -> sqlite3.Connection:
        """All that is held, to be held again."""
        return _copy(self._driver)

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """As `Database.write`."""
        with self._unit("BEGIN IMMEDIATE") as tx:
            changes.forget(self._connection)
            yield tx
            tx.ending()
            changes.write_down(self._connection)
            self._driver.execute("COMMIT")
        tx.committed()

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """As `Database.read`."""
        with self._unit("BEGIN") as tx:
            yield tx

    @contextmanager
    def _unit(self, begin: str) -> Iterator[Tx]:
        if self._open:
            raise Nested
        self._driver.execute(begin)
        self._open = True
        transaction._inside.depth = 1
        try:
            yield Tx(self._connection, self.clock, writable=begin != "BEGIN", kept=self.kept)
        finally:
            transaction._inside.depth = 0
            self._open = False
            if self._driver.in_transaction:
                self._driver.execute("ROLLBACK")

    def dispose(self) -> None:
        """Let the connection go to the next run."""
        self._connection.close()


@lru_cache(maxsize=KEPT_STATEMENTS)
def _written_by(statement: str) -> str | None:
    """The table that a statement writes to."""
    match statement.replace('"', "").split(maxsplit=3):
        case ["INSERT", "INTO", table, *_] | ["DELETE", "FROM", table, *_] | ["UPDATE", table, *_]:
            return table
    return None


@contextmanager
def memory_database(clock: Clock, image: sqlite3.Connection | None = None) -> Iterator[MemoryDatabase]:
    """A database that holds an image, or all tables and the seed of a new cloud. One at a time in a process."""
    db = MemoryDatabase(clock)
    try:
        db.hold(image or _new_cloud())
        yield db
    finally:
        db.dispose()


@cache
def _new_cloud() -> sqlite3.Connection:
    """Made once per process: held again it costs a thousandth of filling another."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    filled = Database("sqlite://", FakeClock())
    filled.writing = filled.reading = engine
    with sealed("new cloud"):
        fill(filled)
    with engine.connect() as connection:
        image = _copy(_driver(connection))
    engine.dispose()
    return image


@cache
def _shared_engine() -> Engine:
    # The default of 500 compiled statements is less than a run has: it would compile some again and again.
    engine = create_engine(
        "sqlite://",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "cached_statements": KEPT_STATEMENTS},
        query_cache_size=KEPT_STATEMENTS,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def _copy(driver: sqlite3.Connection) -> sqlite3.Connection:
    # Not by serialize and deserialize: SQLite 3.40 crashes when statements are kept that knew the former content.
    image = sqlite3.connect(":memory:", check_same_thread=False)
    driver.backup(image)
    return image


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 (the URL says SQLite)
    return driver
