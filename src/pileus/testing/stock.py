"""Databases of one server, kept and filled again: making tables takes seconds, exchanging their rows milliseconds.

On PostgreSQL each is a schema of one database, on MariaDB a database: in both, one statement can copy from another.
Keys go on in a copy where they stood in the original.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.pool import StaticPool

from pileus.server.db.transaction import Database
from pileus.testing.clock import FakeClock
from pileus.testing.servers import DatabaseServer

_PATTERN = "pileus_pattern"
_HOUSE = "pileus_stock"
"""The PostgreSQL database that holds the schemas."""


class Stock:
    """Lends databases with the rows of a pattern, or of another one that is lent."""

    def __init__(self, server: DatabaseServer, fill: Callable[[Database], None]) -> None:
        self._server = server
        self._fill = fill
        self._free: list[str] = []
        self._made = 0
        self._schemas = server.driver.startswith("postgresql")
        if self._schemas:
            server.create(_HOUSE)
        self._make(_PATTERN)

    @contextmanager
    def lent(self, source: Database | None = None) -> Iterator[str]:
        """URL of a database with the rows of `source`, or else of the pattern."""
        if self._free:
            name = self._free.pop()
        else:
            self._made += 1
            name = f"pileus_{self._made}"
            self._make(name)
        self._refill(name, _PATTERN if source is None else self._name(source))
        yield self._url(name)
        self._free.append(name)

    def _make(self, name: str) -> None:
        if self._schemas:
            self._server.run(_HOUSE, f"CREATE SCHEMA {name}")
        else:
            self._server.create(name)
            collation = "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
            self._server.run(name, f"ALTER DATABASE {name} {collation}")
        db = Database(self._url(name), FakeClock())
        self._fill(db)
        db.dispose()

    def _url(self, name: str) -> str:
        if not self._schemas:
            return self._server.url(name)
        url = make_url(self._server.url(_HOUSE))
        return url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string()

    def _name(self, db: Database) -> str:
        if not self._schemas:
            return str(db.url.database)
        return str(db.url.query["options"]).partition("=")[2]

    @cached_property
    def _engine(self) -> Engine:
        """The administrator's one connection: it may leave foreign keys unchecked."""
        url = make_url(self._server.admin_url(_HOUSE if self._schemas else _PATTERN))
        arguments: dict[str, Any] = {} if self._schemas else {"client_flag": _MULTI_STATEMENTS}
        engine = create_engine(url, poolclass=StaticPool, isolation_level="AUTOCOMMIT", connect_args=arguments)
        with engine.connect() as connection:
            for setting in _POSTGRESQL if self._schemas else _MARIADB:
                connection.execute(text(setting))
        return engine

    def _refill(self, name: str, source: str) -> None:
        with self._engine.connect() as connection:
            exchange = _exchange_schemas if self._schemas else _exchange_databases
            statements = exchange(connection, name, source)
            cursor = connection.connection.cursor()
            try:
                cursor.execute("; ".join(statements))
                while cursor.nextset():
                    pass
            finally:
                cursor.close()


_MULTI_STATEMENTS = 1 << 16
_POSTGRESQL = ("SET session_replication_role = replica", "SET lock_timeout = '10s'")
_MARIADB = ("SET foreign_key_checks = 0, innodb_lock_wait_timeout = 10, lock_wait_timeout = 10",)


def _exchange_schemas(connection: Connection, name: str, source: str) -> list[str]:
    found = connection.execute(
        text(
            "SELECT schemaname, tablename, pg_get_serial_sequence(schemaname || '.' || tablename, a.attname)"
            " FROM pg_tables LEFT JOIN pg_attribute a ON a.attname = 'id'"
            " AND a.attrelid = (schemaname || '.' || tablename)::regclass"
            " WHERE schemaname IN (:name, :source)"
        ),
        {"name": name, "source": source},
    ).all()
    here = {table for schema, table, _ in found if schema == name}
    there = {table: sequence for schema, table, sequence in found if schema == source}
    statements = [f"DROP TABLE {name}.{table}" for table in here - there.keys()]
    for table, sequence in there.items():
        if table in here:
            statements.append(f"DELETE FROM {name}.{table}")
        else:
            # A table of the test's own: its keys would count on in the original's sequence.
            statements.append(f"CREATE TABLE {name}.{table} (LIKE {source}.{table} INCLUDING ALL)")
            statements.append(f"ALTER TABLE {name}.{table} OWNER TO pileus")
            if sequence:
                own = f"{name}.{table}_id_seq"
                statements.append(f"CREATE SEQUENCE {own} OWNED BY {name}.{table}.id")
                statements.append(f"ALTER SEQUENCE {own} OWNER TO pileus")
                statements.append(f"ALTER TABLE {name}.{table} ALTER id SET DEFAULT nextval('{own}')")
        statements.append(f"INSERT INTO {name}.{table} SELECT * FROM {source}.{table}")
        if sequence:
            own = sequence.replace(f"{source}.", f"{name}.", 1)
            statements.append(f"SELECT setval('{own}', last_value, is_called) FROM {sequence}")
    return statements


def _exchange_databases(connection: Connection, name: str, source: str) -> list[str]:
    found = connection.execute(
        text(
            "SELECT table_schema, table_name, auto_increment FROM information_schema.tables"
            " WHERE table_schema IN (:name, :source)"
        ),
        {"name": name, "source": source},
    ).all()
    here = {table: following for schema, table, following in found if schema == name}
    there = {table: following for schema, table, following in found if schema == source}
    statements = [f"DROP TABLE `{name}`.`{table}`" for table in here.keys() - there.keys()]
    for table, following in there.items():
        if table in here:
            statements.append(f"DELETE FROM `{name}`.`{table}`")
        else:
            statements.append(f"CREATE TABLE `{name}`.`{table}` LIKE `{source}`.`{table}`")
        statements.append(f"INSERT INTO `{name}`.`{table}` SELECT * FROM `{source}`.`{table}`")
        if following != here.get(table, 1) and following is not None:
            statements.append(f"ALTER TABLE `{name}`.`{table}` AUTO_INCREMENT = {following}")
    return statements
