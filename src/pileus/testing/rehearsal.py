"""A database whose units of work all run and are never kept: any call may be tried on one world, in any order."""

from collections.abc import Iterator
from contextlib import contextmanager

from pileus.server.db.transaction import Database, Tx


class _Undo(Exception):
    """Ends a unit of work that went well."""


class Rehearsal(Database):
    """Shares the engines of another database. What `write` does is undone at its end; nothing is called after it."""

    def __init__(self, database: Database) -> None:
        self.__dict__.update(database.__dict__)

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """As `Database.write`, but nothing is kept."""
        try:
            with super().write() as tx:
                yield tx
                raise _Undo
        except _Undo:
            return
