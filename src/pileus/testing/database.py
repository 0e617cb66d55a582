"""A fresh database for one test, of the kind in use: an SQLite file, or a private PostgreSQL or MariaDB server.

PILEUS_TEST_DATABASES ("sqlite,postgresql,mariadb") says which kinds suites run on; without it, SQLite alone.
"""

import atexit
import copy
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from pileus.server.db.clock import Clock
from pileus.server.db.seed import seed
from pileus.server.db.tables import metadata
from pileus.server.db.transaction import Database
from pileus.testing import servers
from pileus.testing.clock import FakeClock
from pileus.testing.stock import Stock

VARIABLE = "PILEUS_TEST_DATABASES"
KINDS = ("sqlite", "postgresql", "mariadb")

_kind: ContextVar[str] = ContextVar("kind of database", default=KINDS[0])


def kinds() -> tuple[str, ...]:
    """The kinds that suites run on. Raises ValueError for one that does not exist."""
    named = tuple(word.strip() for word in os.environ.get(VARIABLE, KINDS[0]).split(",") if word.strip())
    if not named or not set(named) <= set(KINDS):
        raise ValueError(f"{VARIABLE}: a list of {', '.join(KINDS)} is wanted")
    return named


def kind_in_use() -> str:
    """The kind that `fresh_database` makes here."""
    return _kind.get()


@contextmanager
def using(kind: str) -> Iterator[None]:
    """Databases made within the block are of this kind."""
    token = _kind.set(kind)
    try:
        yield
    finally:
        _kind.reset(token)


@contextmanager
def fresh_database(clock: Clock) -> Iterator[Database]:
    """A database with all tables and the seed of a new cloud; closed at the end of the block."""
    if kind_in_use() == "sqlite":
        with _lent(clock) as db:
            shutil.copyfile(_pattern(), _file(db))
            yield db
        return
    stock = _stock(kind_in_use())
    with stock.lent() as url, _closing(Database(url, clock)) as db:
        yield db


@contextmanager
def copied_database(source: Database, clock: Clock) -> Iterator[Database]:
    """A copy of a database that `fresh_database` made, closed at the end of the block."""
    if not source.is_sqlite:
        stock = _stock("postgresql" if source.url.get_backend_name() == "postgresql" else "mariadb")
        with stock.lent(source) as url, _closing(Database(url, clock)) as db:
            yield db
        return
    with _lent(clock) as db:
        with sqlite3.connect(_file(source)) as held, sqlite3.connect(_file(db)) as twin:
            held.backup(twin)
        held.close()
        twin.close()
        yield db


@contextmanager
def blank_database(directory: Path) -> Iterator[str]:
    """URL of a database without tables, gone at the end of the block."""
    if kind_in_use() == "sqlite":
        yield f"sqlite:///{directory / 'blank.db'}"
        return
    server, name = _server(kind_in_use()), f"pileus_blank_{os.urandom(4).hex()}"
    url = server.create(name)
    try:
        yield url
    finally:
        server.drop(name)


def fill(db: Database) -> None:
    """All tables, and the seed of a new cloud."""
    metadata.create_all(db.writing)
    with db.write() as tx:
        seed(tx)


@contextmanager
def _closing(db: Database) -> Iterator[Database]:
    try:
        yield db
    finally:
        db.dispose()


def _server(kind: str) -> servers.DatabaseServer:
    return servers.postgresql() if kind == "postgresql" else servers.mariadb()


@cache
def _stock(kind: str) -> Stock:
    return Stock(_server(kind), fill)


@cache
def _pattern() -> Path:
    """A filled SQLite file, made once per process: copying it is many times faster than filling another."""
    directory = tempfile.mkdtemp(prefix="pileus-test-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    file = Path(directory, "pattern.db")
    with _closing(Database(f"sqlite:///{file}", FakeClock())) as db:
        fill(db)
    return file


@contextmanager
def _lent(clock: Clock) -> Iterator[Database]:
    """An SQLite database without a file yet, new to everybody; its engines share what earlier ones have compiled."""
    kept = (
        _idle.pop() if _idle else _sqlite(Path(tempfile.mkdtemp(prefix="lent-", dir=_lending())) / "pileus.db", clock)
    )
    db = copy.copy(kept)
    db.clock = clock
    # Caches are kept by engine: what was true in another world is not true in this one.
    db.writing, db.reading = kept.writing.execution_options(), kept.reading.execution_options()
    try:
        yield db
    finally:
        db.dispose()
        for leftover in _file(db).parent.iterdir():
            leftover.unlink()
        _idle.append(kept)


_idle: list[Database] = []


@cache
def _lending() -> Path:
    directory = tempfile.mkdtemp(prefix="pileus-test-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def _file(db: Database) -> Path:
    return Path(str(db.url.database))


def _sqlite(file: Path, clock: Clock) -> Database:
    """No test outlives its machine: commits need not reach the disk."""
    return Database(f"sqlite:///{file}", clock, durable=False)
