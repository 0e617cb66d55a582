"""Migrations make the same database as the tables say."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from pileus.server.db.migrate import DatabaseTooNew, newest, prepare, revision, revisions, upgrade
from pileus.server.db.revise import config, to_newest
from pileus.server.db.seed import seed
from pileus.server.db.tables import metadata
from pileus.server.db.transaction import Database
from pileus.testing.client import counted_statements
from pileus.testing.database import blank_database, kinds, using


@pytest.fixture(params=kinds())
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """Two databases without tables."""
    (tmp_path / "other").mkdir()
    with using(request.param), blank_database(tmp_path) as one, blank_database(tmp_path / "other") as other:
        made = Database(one), Database(other)
        yield made
        for database in made:
            database.dispose()


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


def replay(database: Database) -> bool:
    """Every migration, one after the other."""
    with database.writing.begin() as connection:
        prepare(connection)
        to_newest(connection)
    return True


@pytest.mark.parametrize("way", [upgrade, replay])
def test_a_migrated_database_has_exactly_the_tables(empty: Database, way: Callable[[Database], bool]) -> None:
    assert way(empty)
    assert differences(empty) == []
    with empty.writing.connect() as connection:
        assert revision(connection) == newest()


def schema(database: Database) -> dict[str, object]:
    """Everything that a database says of its tables, by name."""
    with database.writing.connect() as connection:
        seen = inspect(connection)

        def by_name(found: list[Any]) -> list[str]:
            return sorted(str(sorted(each.items(), key=lambda item: str(item[0]))) for each in found)

        return {
            table: {
                "columns": [str({**column, "type": str(column["type"])}) for column in seen.get_columns(table)],
                "primary key": seen.get_pk_constraint(table),
                "indexes": by_name(seen.get_indexes(table)),
                "unique": by_name(seen.get_unique_constraints(table)),
                "foreign": by_name(seen.get_foreign_keys(table)),
                "checks": by_name(seen.get_check_constraints(table)),
            }
            for table in seen.get_table_names()
        }


def test_tables_made_at_once_are_those_that_the_migrations_lead_to(
    both: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, step_by_step = both
    replay(step_by_step)
    # An empty database never gets to see a migration.
    monkeypatch.setattr("pileus.server.db.migrate.importlib", None)
    assert upgrade(at_once)
    made = schema(at_once)
    assert made.keys() > {"vm", "job", "alembic_version"}
    assert made == schema(step_by_step)


def test_a_database_with_tables_but_no_revision_is_not_taken_for_an_empty_one(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with empty.write() as tx:
        tx.execute(text("CREATE TABLE theirs (id INTEGER)"))

    def never(_connection: object) -> None:
        raise AssertionError("these tables are not ours alone")

    monkeypatch.setattr("pileus.server.db.migrate.create", never)
    assert upgrade(empty)
    assert revision_of(empty) == newest()


def revision_of(database: Database) -> str | None:
    with database.read() as tx:
        return revision(tx.connection)


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
