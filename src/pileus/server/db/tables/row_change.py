"""Which rows have changed, in the order of writing: what views in memory read instead of whole tables."""

from sqlalchemy import Column, Table

from pileus.server.db.tables.column import Key, Short, key, metadata

row_change = Table(
    "row_change",
    metadata,
    key(),
    Column("subject", Short, nullable=False),
    Column("row_id", Key, nullable=False),
    # A number is never given twice, not even that of a deleted last row: readers go by it.
    sqlite_autoincrement=True,
)
"""`subject` is one of `db.changes`; "*" with row 0 says that any row may have changed."""
