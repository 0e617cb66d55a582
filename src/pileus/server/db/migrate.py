"""Bring a database to the tables of this version. The first server to come does it; others wait for its lock."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from pileus.server.db.transaction import Database


def config(connection: Connection | None = None) -> Config:
    """Alembic's settings, without a file of its own."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    found.set_main_option("path_separator", "os")
    if connection is not None:
        found.attributes["connection"] = connection
    return found


def newest() -> str:
    """The revision of this version's tables."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    if head is None:
        raise LookupError("no migration is shipped")
    return head


def revision(connection: Connection) -> str | None:
    """The revision a database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(database: Database) -> bool:
    """Bring the database to `newest`. False when it was there already."""
    with database.reading.connect() as connection:
        if revision(connection) == newest():
            return False
    with database.writing.begin() as connection:
        if revision(connection) == newest():
            return False
        command.upgrade(config(connection), "head")
    return True
