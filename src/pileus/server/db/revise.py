"""Alembic runs the migrations. Loaded only when there is something to migrate: it takes a good part of a start."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def config(connection: Connection | None = None) -> Config:
    """Alembic's settings, without a file of its own."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    found.set_main_option("path_separator", "os")
    if connection is not None:
        found.attributes["connection"] = connection
    return found


def to_newest(connection: Connection) -> None:
    """Run what is missing, in the connection's transaction."""
    command.upgrade(config(connection), "head")
