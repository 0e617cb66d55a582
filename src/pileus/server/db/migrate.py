"""Bring a database to the tables of this version. The first server to come does it; others wait for its lock."""

import importlib
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, text

from pileus.server.db.dialect import MYSQL
from pileus.server.db.exclusive import exclusively
from pileus.server.db.seed import seed
from pileus.server.db.tables import metadata
from pileus.server.db.transaction import Database

VERSIONS = Path(__file__).parent / "migrations" / "versions"

_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Alembic's own table, as Alembic makes it."""

OLDEST = {"mysql": (8, 0, 17), "mariadb": (10, 6), "postgresql": (13,)}


class DatabaseTooOld(RuntimeError):
    """The database server cannot hold our tables; the text says what it would have to be."""


class DatabaseTooNew(RuntimeError):
    """The database was migrated by a later version of ours; the text names the revision."""


def revisions() -> list[str]:
    """The revisions this version knows, oldest first: migrations are numbered, and each follows the one before."""
    return sorted(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py"))


def newest() -> str:
    """The revision of this version's tables."""
    return revisions()[-1]


def revision(connection: Connection) -> str | None:
    """The revision a database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(database: Database) -> bool:
    """Bring the database to `newest`. False when it was there already. Raises DatabaseTooOld and DatabaseTooNew."""
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
        found = revision(connection)
        if found == newest():
            return False
        if found is not None and found not in revisions():
            raise DatabaseTooNew(f"it is at revision {found}, and this version knows none later than {newest()}")
        prepare(connection)
        if found is None and not inspect(connection).get_table_names():
            create(connection)
            return True
        # Loaded here on purpose, see there.
        importlib.import_module("pileus.server.db.revise").to_newest(connection)
    return True


def create(connection: Connection) -> None:
    """All tables at once in an empty database, at the newest revision: what replaying every migration leads to."""
    metadata.create_all(connection, checkfirst=False)
    _VERSION.create(connection)
    connection.execute(insert(_VERSION).values(version_num=newest()))


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
