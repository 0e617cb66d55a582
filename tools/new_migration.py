"""Write a migration from the difference between the newest one and the tables: tools/new_migration.py "message"."""

import sys
import tempfile
from pathlib import Path

from alembic import command

from pileus.server.db.revise import config
from pileus.server.db.transaction import Database


def main() -> int:
    """Bring a scratch database to the newest migration, compare, write the next file."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: tools/new_migration.py MESSAGE\n")
        return 2
    versions = Path("src/pileus/server/db/migrations/versions")
    number = f"{len(list(versions.glob('[0-9]*.py'))) + 1:04d}"
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/scratch.db")
        with database.writing.begin() as connection:
            command.upgrade(config(connection), "head")
        with database.writing.begin() as connection:
            command.revision(config(connection), sys.argv[1], autogenerate=True, rev_id=number)
        database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
