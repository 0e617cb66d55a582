"""Shapes that all tables share: keys, UUIDs, instants, and the `live` flag.

`live` is 1 for a row in use and NULL for a removed one. Unique constraints that contain it therefore bind only live
rows on every database we support, and hot indexes lead with it, so removed rows never slow a live query.
Instants are integers: milliseconds since the Unix epoch, UTC.
"""

import uuid
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, SmallInteger, String, Text
from sqlalchemy.dialects import mysql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Key = BigInteger().with_variant(Integer, "sqlite")
"""Type of primary and foreign keys. SQLite gives row ids to plain INTEGER only."""

LongText = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
"""Text that may pass 64 KiB, which is where MySQL's TEXT ends."""

Name = String(255)
Short = String(64)


def new_uuid() -> str:
    """A fresh random UUID, as text."""
    return str(uuid.uuid4())


def key() -> Column[Any]:
    """The integer primary key."""
    return Column("id", Key, primary_key=True, autoincrement=True)


def uuid_column() -> Column[Any]:
    """The public name of the row."""
    return Column("uuid", String(40), nullable=False, unique=True, default=new_uuid)


def instant(name: str, *, nullable: bool = False) -> Column[Any]:
    """Milliseconds since the epoch."""
    return Column(name, BigInteger, nullable=nullable)


def live() -> Column[Any]:
    """1 while in use, NULL once removed."""
    return Column("live", SmallInteger, nullable=True, default=1)


def flag(name: str, *, default: bool = False) -> Column[Any]:
    """A boolean as a small integer: portable in indexes and sums."""
    return Column(name, SmallInteger, nullable=False, default=int(default))
