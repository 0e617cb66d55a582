"""What must hold on every kind of database, whatever the settings of its server."""

import contextlib
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from pileus.server.db.clock import SystemClock
from pileus.server.db.migrate import make_ready, newest, revision, upgrade
from pileus.server.db.moment import database_now
from pileus.server.db.seed import seed
from pileus.server.db.tables import metadata
from pileus.server.db.tables.account import account, domain, users
from pileus.server.db.tables.control import generation
from pileus.server.db.tables.setting import setting
from pileus.server.db.tables.template import os_category
from pileus.server.db.transaction import Database, SwallowedConflict
from pileus.server.domain.account import ROOT_DOMAIN
from pileus.testing.database import KINDS, blank_database

pytestmark = pytest.mark.parametrize("database_kind", KINDS, indirect=True)


def in_threads(*works: object) -> list[object]:
    """What each function returned, or the error it raised, all run at once."""
    said: list[object] = [None] * len(works)

    def call(number: int) -> None:
        try:
            said[number] = works[number]()  # type: ignore[operator]
        except Exception as error:
            said[number] = error

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return said


def test_the_migrations_make_exactly_the_tables_of_this_version(tmp_path: Path, database_kind: str) -> None:
    with blank_database(tmp_path) as url:
        db = Database(url)
        assert upgrade(db)
        assert not upgrade(db)
        with db.writing.connect() as connection:
            assert revision(connection) == newest()
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []
        db.dispose()


def test_servers_that_start_together_make_one_cloud(tmp_path: Path, database_kind: str) -> None:
    with blank_database(tmp_path) as url:
        servers = [Database(url) for _ in range(3)]
        first = servers[0]
        said = in_threads(*[lambda server=server: make_ready(server) for server in servers])
        assert said == [None, None, None]
        with first.read() as tx:
            assert tx.scalar(select(func.count()).select_from(domain)) == 1
            assert tx.scalar(select(func.count()).select_from(os_category)) == len(
                tx.all(select(os_category.c.name).distinct())
            )
        for server in servers:
            server.dispose()


def test_a_server_that_dies_while_it_starts_leaves_the_way_free(tmp_path: Path, database_kind: str) -> None:
    with blank_database(tmp_path) as url:
        broken, well = Database(url), Database(url)
        broken.clock = None  # type: ignore[assignment]
        with pytest.raises(AttributeError):
            make_ready(broken)
        make_ready(well)
        broken.dispose()
        well.dispose()


def test_keys_go_on_behind_those_of_the_seed(db: Database) -> None:
    with db.write() as tx:
        seed(tx)
        row = {"path": "/a/", "level": 1, "parent_id": ROOT_DOMAIN, "created_at": tx.now}
        made = tx.insert(insert(domain).values(name="a", **row))
        assert made > ROOT_DOMAIN
        taken = set(tx.execute(select(account.c.id)).scalars())
        assert tx.insert(insert(account).values(name="b", type=0, domain_id=made, created_at=tx.now)) not in taken
        person = {"account_id": 2, "domain_id": made, "username": "c", "created_at": tx.now}
        assert tx.insert(insert(users).values(**person)) > 2


def test_text_compares_byte_by_byte(db: Database) -> None:
    names = ["name", "Name", "name ", "näme", "nàme", "名", "🏔"]
    with db.write() as tx:
        for name in names:
            tx.execute(insert(generation).values(name=name, n=1))
        for name in names:
            found = tx.execute(select(generation.c.name).where(generation.c.name == name)).scalars().all()
            assert found == [name]


def test_removed_rows_do_not_bind_unique_names_and_live_ones_do(db: Database) -> None:
    with db.write() as tx:
        row = {"name": "twin", "path": "/twin/", "level": 1, "parent_id": ROOT_DOMAIN, "created_at": tx.now}
        for _ in range(2):
            tx.insert(insert(domain).values(**row, live=None))
        tx.insert(insert(domain).values(**row))
        with pytest.raises(IntegrityError), tx.connection.begin_nested():
            tx.insert(insert(domain).values(**row))


def test_an_update_that_changes_nothing_still_counts_its_rows(db: Database) -> None:
    with db.write() as tx:
        tx.execute(insert(generation).values(name="same", n=7))
        same = update(generation).where(generation.c.name == "same", generation.c.n == 7).values(n=7)
        assert tx.execute(same).rowcount == 1
        assert tx.execute(same).rowcount == 1


def test_long_text_and_large_numbers_are_kept_whole_or_refused(db: Database, database_kind: str) -> None:
    long_text = "é" * 20_000
    with db.write() as tx:
        tx.execute(insert(setting).values(name="long", value=long_text, changed_at=2**62))
        row = tx.one(select(setting).where(setting.c.name == "long"))
        assert row is not None
        assert row["value"] == long_text
        assert row["changed_at"] == 2**62
    too_long = insert(generation).values(name="x" * 65, n=1)
    if database_kind != "sqlite":
        with pytest.raises(DBAPIError), db.write() as tx:
            tx.execute(too_long)


def test_the_databases_clock_runs_in_utc_with_the_machines(db: Database) -> None:
    real = Database(db.url.render_as_string(hide_password=False), SystemClock())
    before = SystemClock().now()
    with real.write() as tx:
        now = tx.scalar(select(database_now(tx)))
    # It is the same machine, so an hour apart would be a time zone.
    assert abs(now - before) < 1_000_000
    real.dispose()


def test_a_failed_statement_that_somebody_swallowed_keeps_nothing(db: Database, database_kind: str) -> None:
    def careless() -> None:
        with db.write() as tx:
            tx.execute(insert(generation).values(name="before", n=1))
            with contextlib.suppress(DBAPIError):
                tx.execute(text("SELECT nothing FROM nowhere"))

    if database_kind == "postgresql":
        # It would answer COMMIT with a rollback, and the caller would believe what is not so.
        with pytest.raises(SwallowedConflict):
            careless()
    else:
        careless()
    with db.read() as tx:
        kept = tx.scalar(select(func.count()).select_from(generation).where(generation.c.name == "before"))
    assert kept == (0 if database_kind == "postgresql" else 1)


def test_readers_see_what_was_committed_and_nothing_else(db: Database) -> None:
    count = select(func.count()).select_from(generation).where(generation.c.name == "new")
    with db.write() as tx:
        tx.execute(insert(generation).values(name="new", n=1))
        said = in_threads(lambda: _scalar(db, count))
    assert said == [0]
    assert _scalar(db, count) == 1


def _scalar(db: Database, statement: object) -> object:
    with db.read() as tx:
        return tx.scalar(statement)  # type: ignore[arg-type]
