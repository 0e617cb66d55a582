"""What servers of one farm tell each other: cache generations and who is there."""

from sqlalchemy import BigInteger, Column, Table

from pileus.server.db.tables.column import Name, Short, instant, metadata

generation = Table(
    "generation",
    metadata,
    Column("name", Short, primary_key=True),
    Column("n", BigInteger, nullable=False, default=0),
)
"""Bumped in the transaction that changes a cached noun; caches compare it once per unit of work."""

server = Table(
    "server",
    metadata,
    Column("name", Name, primary_key=True),
    Column("address", Name, nullable=False),
    Column("version", Short, nullable=False),
    instant("started_at"),
    instant("seen_at"),
)
"""Management servers of the farm."""
