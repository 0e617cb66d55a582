"""Bring a database to the tables of this version. The first server to come does it; others wait for its lock."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from pileus.server.db.dialect import MYSQL
from pileus.server.db.exclusive import exclusively
from pileus.server.db.seed import seed
from pileus.server.db.transaction import Database

OLDEST = {"mysql": (8, 0, 17), "mariadb": (10, 6), "postgresql": (13,)}


class DatabaseTooOld(RuntimeError):
    """The database server cannot hold our tables; the text says what it would have to be."""


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
    """Bring the database to `newest`. False when it was there already. Raises DatabaseTooOld."""
    with exclusively(database):
        return _upgrade(database)


def make_ready(database: Database) -> None:
    """What a server does first: `upgrade`, and every built-in row. Servers that start together take turns."""
    with exclusively(database):
        _upgrade(database)
        database.run(seed)


def _upgrade(database: Database) -> bool:
    with database.reading.connect() as connection:
        check_age(connection)
    with database.writing.begin() as connection:
        if revision(connection) == newest():
            return False
        prepare(connection)
        command.upgrade(config(connection), "head")
    return True


def prepare(connection: Connection) -> None:
    """Make an empty database ours: on MySQL and MariaDB, all text compares byte by byte, as on the other databases."""
    if connection.dialect.name in MYSQL:
        maria = getattr(connection.dialect, "is_mariadb", False)
        # Not utf8mb4_bin: to it, names that differ in blanks at the end are the same.
        collation = "utf8mb4_nopad_bin" if maria else "utf8mb4_0900_bin"
        name = connection.dialect.identifier_preparer.quote(str(connection.engine.url.database))
        connection.execute(text(f"ALTER DATABASE {name} CHARACTER SET utf8mb4 COLLATE {collation}"))


def check_age(connection: Connection) -> None:
    """Raises DatabaseTooOld for a server older than any we know to work."""
    found = connection.dialect.server_version_info
    kind = "mariadb" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name
    oldest = OLDEST.get(kind)
    if oldest is not None and found is not None and found < oldest:
        raise DatabaseTooOld(f"{kind} {_dotted(found)} is too old: {_dotted(oldest)} at least is needed")


def _dotted(version: tuple[object, ...]) -> str:
    return ".".join(map(str, version))
