"""What PostgreSQL and MySQL/MariaDB are told at each connection, so that they behave alike whatever their settings."""

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import ARRAY, URL, BigInteger, Column, ColumnElement, Connection, Table, any_, bindparam, func, select

MYSQL = ("mysql", "mariadb")

LOCK_SECONDS = 30
"""How long a statement waits for a row; SQLite waits as long for its writer."""

IDLE_SECONDS = 60
"""After this long without a word inside a transaction, the database gives a server up: a frozen one holds no locks."""

_CONNECT_SECONDS = 10

_POSTGRESQL = {
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "timezone": "UTC",
}

# Without strictness too long a text is cut; without NO_AUTO_VALUE_ON_ZERO a 0 becomes the next key; and a time zone
# with summer time makes the database's clock, by which leases run out, say the same hour twice.
_MYSQL = (
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin,"
    " SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ERROR_FOR_DIVISION_BY_ZERO',"
    " SESSION time_zone = '+00:00',"
    f" SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}"
    f" /*M!100300 , SESSION idle_transaction_timeout = {IDLE_SECONDS} */"
)


def connect_arguments(url: URL) -> dict[str, Any]:
    """Arguments of the driver's `connect` for a database with several writers; what the URL says wins."""
    if url.get_backend_name() in MYSQL:
        arguments = {"charset": "utf8mb4", "init_command": _MYSQL, "connect_timeout": _CONNECT_SECONDS}
    else:
        options = [f"-c {name}={value}" for name, value in _POSTGRESQL.items()]
        if "options" in url.query:
            options.append(str(url.query["options"]))
        arguments = {"options": " ".join(options), "connect_timeout": _CONNECT_SECONDS}
    return {name: value for name, value in arguments.items() if name == "options" or name not in url.query}


def pass_given_keys(connection: Connection, table: Table) -> None:
    """After rows were inserted with keys of our choice: PostgreSQL's sequence of the table goes on behind them."""
    if connection.dialect.name == "postgresql":
        last = select(func.max(table.c.id)).scalar_subquery()
        connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), last)))


def among(column: Column[Any], dialect: str, name: str = "keys") -> ColumnElement[bool]:
    """Condition that a column is one of the values of parameter `name`, which `as_parameter` writes.

    One parameter however many values, where the database can: the text of the statement stays the same, and neither
    side takes it apart again for every length.
    """
    if dialect == "sqlite":
        values = func.json_each(bindparam(name)).table_valued("value")
        return column.in_(select(values.c.value))
    if dialect == "postgresql":
        kind = BigInteger() if isinstance(column.type, BigInteger) else column.type
        return column == any_(bindparam(name, type_=ARRAY(kind)))
    return column.in_(bindparam(name, expanding=True))


def as_parameter(values: Collection[Any], dialect: str) -> Any:
    """Values for the parameter of `among`."""
    return json.dumps(list(values)) if dialect == "sqlite" else list(values)


def is_broken(connection: Connection) -> bool:
    """Whether a statement failed in this transaction outside of a savepoint: PostgreSQL's COMMIT would roll it back,
    and say nothing."""
    if connection.dialect.name != "postgresql":
        return False
    driver = connection.connection.driver_connection
    return driver is not None and int(driver.info.transaction_status) == _IN_ERROR


_IN_ERROR = 3
"""libpq's PQTRANS_INERROR."""
