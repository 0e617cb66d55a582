"""Units of work. One thread, one connection, one short transaction: never a network call inside.

SQLite has one writer: its writes take a lock of this process first (no busy loop) and BEGIN IMMEDIATE (no upgrade
that could fail half way). Work to be done after a commit (waking a worker) is registered with `after_commit`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, RowMapping, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool

from pileus.server.db.clock import Clock, SystemClock

_inside = threading.local()


def inside_transaction() -> bool:
    """Whether this thread is inside a unit of work; anything that talks to a network must find False."""
    return bool(getattr(_inside, "depth", 0))


class Tx:
    """A running unit of work. `now` is fixed at its beginning, so all rows it writes carry one time."""

    def __init__(self, connection: Connection, clock: Clock, *, writable: bool) -> None:
        self.connection = connection
        self.clock = clock
        self.now = clock.now()
        self.writable = writable
        self.memo: dict[str, Any] = {}
        """What this unit of work has already looked up; it dies with it."""
        self._after: list[Callable[[], None]] = []

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run a Core statement."""
        return self.connection.execute(statement, parameters)

    def one(self, statement: Executable) -> RowMapping | None:
        """The only row, or None."""
        return self.connection.execute(statement).mappings().one_or_none()

    def all(self, statement: Executable) -> list[RowMapping]:
        """All rows."""
        return list(self.connection.execute(statement).mappings())

    def scalar(self, statement: Executable) -> Any:
        """First column of the first row, or None."""
        return self.connection.execute(statement).scalar()

    def insert(self, statement: Executable) -> int:
        """Run an INSERT of one row and return its integer key."""
        result: CursorResult[Any] = self.connection.execute(statement)
        inserted = result.inserted_primary_key
        assert inserted is not None  # noqa: S101 (every table with a key reports it)
        return int(inserted[0])

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call `action` once the transaction is durable; never called when it rolls back."""
        self._after.append(action)

    def committed(self) -> None:
        """Run what was registered with `after_commit`."""
        actions, self._after = self._after, []
        for action in actions:
            action()


class Database:
    """Engines and the two kinds of unit of work."""

    def __init__(self, url: str, clock: Clock | None = None, *, pool_size: int = 8) -> None:
        self.url = make_url(url)
        self.clock = clock or SystemClock()
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._writer = threading.RLock() if self.is_sqlite else None
        self.writing = self._engine(pool_size, writing=True)
        self.reading = self._engine(pool_size, writing=False)

    def _engine(self, pool_size: int, *, writing: bool) -> Engine:
        if self.is_sqlite:
            engine = create_engine(
                self.url,
                poolclass=QueuePool,
                pool_size=1 if writing else pool_size,
                max_overflow=0 if writing else pool_size,
                connect_args={"check_same_thread": False, "timeout": 30},
                hide_parameters=True,
            )
            _prepare_sqlite(engine, begin="BEGIN IMMEDIATE" if writing else "BEGIN")
            return engine
        if writing:
            return create_engine(
                self.url,
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_pre_ping=True,
                # A second look within a transaction must see what others committed (db.topics relies on it).
                isolation_level="READ COMMITTED",
                hide_parameters=True,
            )
        return create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            hide_parameters=True,
        )

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction that commits at the end of the block and rolls back on any exception."""
        if self._writer is not None:
            self._writer.acquire()
        _inside.depth = getattr(_inside, "depth", 0) + 1
        try:
            with self.writing.begin() as connection:
                tx = Tx(connection, self.clock, writable=True)
                yield tx
        finally:
            _inside.depth -= 1
            if self._writer is not None:
                self._writer.release()
        tx.committed()

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A unit of work that only reads; it blocks nobody and nobody blocks it."""
        _inside.depth = getattr(_inside, "depth", 0) + 1
        try:
            with self.reading.connect() as connection:
                yield Tx(connection, self.clock, writable=False)
        finally:
            _inside.depth -= 1

    def dispose(self) -> None:
        """Close all connections."""
        self.writing.dispose()
        self.reading.dispose()


def _prepare_sqlite(engine: Engine, *, begin: str) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=30000",
            "temp_store=MEMORY",
            "cache_size=-16000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
