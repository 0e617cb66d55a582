"""Migrations make the same database as the tables say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from pileus.server.db.migrate import DatabaseTooNew, newest, revision, revisions, upgrade
from pileus.server.db.revise import config
from pileus.server.db.seed import seed
from pileus.server.db.tables import metadata
from pileus.server.db.transaction import Database
from pileus.testing.client import counted_statements


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    yield database
    database.dispose()


def differences(database: Database) -> list[object]:
    """What the tables have and the database has not, or the other way round; types and defaults included."""
    with database.writing.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        return list(compare_metadata(context, metadata))


def test_migrations_are_numbered_in_the_order_in_which_they_follow_each_other() -> None:
    scripts = ScriptDirectory.from_config(config())
    assert [script.revision for script in scripts.walk_revisions()] == revisions()[::-1]
    assert scripts.get_current_head() == newest()


def test_a_migrated_database_has_exactly_the_tables(empty: Database) -> None:
    assert upgrade(empty)
    assert differences(empty) == []
    with empty.writing.connect() as connection:
        assert revision(connection) == newest()


def test_the_comparison_sees_a_difference(empty: Database) -> None:
    upgrade(empty)
    with empty.write() as tx:
        tx.execute(text("DROP INDEX ix_host_live_cluster"))
        tx.execute(text("ALTER TABLE zone ADD COLUMN stray INTEGER"))
    assert len(differences(empty)) == 2


def test_a_second_upgrade_changes_nothing(empty: Database) -> None:
    upgrade(empty)
    with empty.write() as tx:
        seed(tx)
    with counted_statements(empty) as seen:
        assert not upgrade(empty)
    assert [
        statement for statement in seen if not statement.lstrip().upper().startswith(("SELECT", "PRAGMA", "BEGIN"))
    ] == []


def test_the_seed_can_be_sown_again(empty: Database) -> None:
    upgrade(empty)
    with empty.write() as tx:
        seed(tx)
        rows = {table.name: tx.all(table.select()) for table in metadata.sorted_tables}
    with empty.write() as tx:
        seed(tx)
    with empty.read() as tx:
        assert {table.name: tx.all(table.select()) for table in metadata.sorted_tables} == rows


def test_a_database_of_a_newer_version_is_left_alone(empty: Database) -> None:
    upgrade(empty)
    with empty.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew, match="9999"):
        upgrade(empty)
