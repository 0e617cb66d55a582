"""A fresh database for one test: SQLite in a directory, or the server that PILEUS_TEST_DATABASE names.

On a server every table is dropped first: the variable must name a database that holds nothing of value.
"""

import atexit
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import event

from pileus.server.db.clock import Clock
from pileus.server.db.seed import seed
from pileus.server.db.tables import metadata
from pileus.server.db.transaction import Database
from pileus.testing.clock import FakeClock

VARIABLE = "PILEUS_TEST_DATABASE"


@contextmanager
def fresh_database(directory: Path, clock: Clock) -> Iterator[Database]:
    """A database with all tables and the seed of a new cloud; closed at the end of the block."""
    named = os.environ.get(VARIABLE)
    if named is None:
        file = directory / "pileus.db"
        shutil.copyfile(_pattern(), file)
        db = Database(f"sqlite:///{file}", clock)
        _need_not_last(db)
    else:
        db = Database(named, clock)
        metadata.drop_all(db.writing)
        _fill(db)
    try:
        yield db
    finally:
        db.dispose()


@contextmanager
def copied_database(source: Database, directory: Path, clock: Clock) -> Iterator[Database]:
    """A copy of a SQLite database, closed at the end of the block."""
    file = directory / "pileus.db"
    with sqlite3.connect(str(source.url.database)) as held, sqlite3.connect(file) as copy:
        held.backup(copy)
    held.close()
    copy.close()
    db = Database(f"sqlite:///{file}", clock)
    _need_not_last(db)
    try:
        yield db
    finally:
        db.dispose()


def _fill(db: Database) -> None:
    metadata.create_all(db.writing)
    with db.write() as tx:
        seed(tx)


@cache
def _pattern() -> Path:
    """A filled SQLite file, made once per process: copying it is many times faster than filling another."""
    directory = tempfile.mkdtemp(prefix="pileus-test-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    file = Path(directory, "pattern.db")
    db = Database(f"sqlite:///{file}", FakeClock())
    _fill(db)
    db.dispose()
    return file


def _need_not_last(db: Database) -> None:
    """No test outlives its machine: commits need not reach the disk."""

    def connected(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    for engine in (db.writing, db.reading):
        event.listen(engine, "connect", connected)
