"""A fresh database for one test: SQLite in a directory, or the server that PILEUS_TEST_DATABASE names.

On a server every table is dropped first: the variable must name a database that holds nothing of value.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pileus.server.db.clock import Clock
from pileus.server.db.seed import seed
from pileus.server.db.tables import metadata
from pileus.server.db.transaction import Database

VARIABLE = "PILEUS_TEST_DATABASE"


@contextmanager
def fresh_database(directory: Path, clock: Clock) -> Iterator[Database]:
    """A database with all tables and the seed of a new cloud; closed at the end of the block."""
    url = os.environ.get(VARIABLE) or f"sqlite:///{directory / 'pileus.db'}"
    db = Database(url, clock)
    try:
        if not db.is_sqlite:
            metadata.drop_all(db.writing)
        metadata.create_all(db.writing)
        with db.write() as tx:
            seed(tx)
        yield db
    finally:
        db.dispose()
