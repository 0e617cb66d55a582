"""Units of work. One thread, one connection, one short transaction: never a network call inside.

SQLite has one writer: its writes take a lock of this process first (no busy loop) and BEGIN IMMEDIATE (no upgrade
that could fail half way); they are flushed to disk together, after the lock is given up. Elsewhere the database may
roll a unit back to end a deadlock: `Database.run` calls it again.
Work to be done after a commit (waking a worker) is registered with `after_commit`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable, RowMapping, create_engine, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.pool import QueuePool

from pileus.server.db import changes
from pileus.server.db.clock import Clock, SystemClock
from pileus.server.db.conflict import retried, says_conflict
from pileus.server.db.dialect import connect_arguments, is_broken
from pileus.server.db.durable import LogFlush
from pileus.server.meter import Histogram, seconds

T = TypeVar("T")

UNITS = Histogram(
    "pileus_database_transaction_seconds", "Units of work from their first statement to their end, by kind", "kind"
)
WRITER_WAITS = Histogram(
    "pileus_database_writer_wait_seconds", "How long units of work waited for the place of SQLite's only writer"
)

_inside = threading.local()


class SwallowedConflict(RuntimeError):
    """Somebody caught the error of a rolled back transaction and went on: what came after must not be committed."""


def inside_transaction() -> bool:
    """Whether this thread is inside a unit of work; anything that talks to a network must find False."""
    return bool(getattr(_inside, "depth", 0))


class Tx:
    """A running unit of work. `now` is fixed at its beginning, so all rows it writes carry one time."""

    def __init__(self, connection: Connection, clock: Clock, *, writable: bool, kept: dict[str, Any]) -> None:
        self.connection = connection
        self.clock = clock
        self.now = clock.now()
        self.writable = writable
        self.memo: dict[str, Any] = {}
        """What this unit of work has already looked up; it dies with it."""
        self.kept = kept
        """What this process keeps of the database between units of work; whoever keeps it locks and refreshes it."""
        self._before: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run a Core statement."""
        return self.connection.execute(statement, parameters)

    def one(self, statement: Executable) -> RowMapping | None:
        """The only row, or None."""
        return self.connection.execute(statement).mappings().one_or_none()

    def all(self, statement: Executable) -> list[RowMapping]:
        """All rows."""
        return list(self.connection.execute(statement).mappings().all())

    def scalar(self, statement: Executable) -> Any:
        """First column of the first row, or None."""
        return self.connection.execute(statement).scalar()

    def insert(self, statement: Executable) -> int:
        """Run an INSERT of one row and return its integer key."""
        result: CursorResult[Any] = self.connection.execute(statement)
        inserted = result.inserted_primary_key
        assert inserted is not None  # noqa: S101 (every table with a key reports it)
        return int(inserted[0])

    def before_commit(self, action: Callable[[], None]) -> None:
        """Call `action` as the last thing inside the transaction: for what takes locks that others wait for."""
        self._before.append(action)

    def ending(self) -> None:
        """Run what was registered with `before_commit`."""
        actions, self._before = self._before, []
        for action in actions:
            action()

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call `action` once the transaction is durable; never called when it rolls back."""
        self._after.append(action)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A part that can fail by itself: on an exception all that it wrote and registered is taken back."""
        first, last, memo = len(self._before), len(self._after), dict(self.memo)
        self._say("SAVEPOINT attempt")
        try:
            yield
        except BaseException:
            self._say("ROLLBACK TO SAVEPOINT attempt")
            self._say("RELEASE SAVEPOINT attempt")
            del self._before[first:]
            del self._after[last:]
            self.memo.clear()
            self.memo.update(memo)
            raise
        self._say("RELEASE SAVEPOINT attempt")

    def _say(self, sql: str) -> None:
        cursor = self.connection.connection.cursor()
        cursor.execute(sql)
        cursor.close()

    def committed(self) -> None:
        """Run what was registered with `after_commit`."""
        actions, self._after = self._after, []
        for action in actions:
            action()


class Database:
    """Engines and the two kinds of unit of work."""

    def __init__(self, url: str, clock: Clock | None = None, *, pool_size: int = 8, durable: bool = True) -> None:
        """`durable` False, for tests: on SQLite, commits need not reach the disk."""
        self.url = make_url(url)
        self.clock = clock or SystemClock()
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._writer = threading.RLock() if self.is_sqlite else None
        self.kept: dict[str, Any] = {}
        file = self.url.database if self.is_sqlite and durable else None
        self._flush = LogFlush(Path(file)) if file and file != ":memory:" else None
        self._synchronous = "NORMAL" if durable else "OFF"
        self.writing = self._engine(pool_size, writing=True)
        changes.note(self.writing)
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
            _prepare_sqlite(engine, begin="BEGIN IMMEDIATE" if writing else "BEGIN", synchronous=self._synchronous)
            return engine
        if writing:
            engine = create_engine(
                self.url,
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_pre_ping=True,
                # A second look within a transaction must see what others committed (db.topics relies on it).
                isolation_level="READ COMMITTED",
                hide_parameters=True,
                connect_args=connect_arguments(self.url),
            )
            event.listen(engine, "handle_error", _note_conflict)
            return engine
        return create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            # psycopg forgets its prepared statements at every rollback: reading units have none to roll back.
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            hide_parameters=True,
            connect_args=connect_arguments(self.url),
        )

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction that commits at the end of the block and rolls back on any exception.

        A conflict with another one surfaces as an error: use `run`, or `retried` around the whole block.
        """
        if self._writer is not None:
            asked = seconds()
            self._writer.acquire()
            WRITER_WAITS.observe(seconds() - asked)
        _inside.depth = getattr(_inside, "depth", 0) + 1
        began = seconds()
        ticket = None
        try:
            with self.writing.begin() as connection:
                connection.info.pop(_CONFLICT, None)
                changes.forget(connection)
                tx = Tx(connection, self.clock, writable=True, kept=self.kept)
                yield tx
                tx.ending()
                changes.write_down(connection)
                if _CONFLICT in connection.info or is_broken(connection):
                    raise SwallowedConflict("the transaction was rolled back before its end")
            if self._flush is not None:
                ticket = self._flush.written()
        finally:
            _inside.depth -= 1
            if self._writer is not None:
                self._writer.release()
            UNITS.observe(seconds() - began, "write")
        if self._flush is not None:
            self._flush.wait(ticket)
        tx.committed()

    def settled(self) -> None:
        """Return once everything that could be read until now is on disk: before the world is told of it."""
        if self._flush is not None:
            self._flush.wait()

    def run(self, work: Callable[[Tx], T]) -> T:
        """What `work` returns, in a transaction of its own; from its beginning again after a conflict with others."""

        def once() -> T:
            with self.write() as tx:
                return work(tx)

        return retried(once)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A unit of work that only reads; it blocks nobody and nobody blocks it."""
        _inside.depth = getattr(_inside, "depth", 0) + 1
        began = seconds()
        try:
            with self.reading.connect() as connection:
                yield Tx(connection, self.clock, writable=False, kept=self.kept)
        finally:
            _inside.depth -= 1
            UNITS.observe(seconds() - began, "read")

    def dispose(self) -> None:
        """Close all connections, and forget what was kept of the database."""
        self.writing.dispose()
        self.reading.dispose()
        self.kept.clear()
        if self._flush is not None:
            self._flush.close()


_CONFLICT = "conflict"


def note_conflict(connection: Connection, error: BaseException | None) -> None:
    """Remember that the transaction was rolled back by the database, if the driver's error says so."""
    if says_conflict(error):
        connection.info[_CONFLICT] = True


def _note_conflict(context: ExceptionContext) -> None:
    if context.connection is not None:
        note_conflict(context.connection, context.original_exception)


def _prepare_sqlite(engine: Engine, *, begin: str, synchronous: str) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            # The log is flushed by us, for many commits at once; SQLite flushes it before it moves pages out of it.
            f"synchronous={synchronous}",
            "wal_autocheckpoint=4000",
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
