"""Configuration values that differ from their defaults, and their history."""

from sqlalchemy import Column, Index, Table, Text

from pileus.server.db.tables.column import Key, Name, instant, key, metadata

setting = Table(
    "setting",
    metadata,
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=True),
    instant("changed_at"),
)

setting_change = Table(
    "setting_change",
    metadata,
    key(),
    Column("name", Name, nullable=False),
    Column("old_value", Text, nullable=True),
    Column("new_value", Text, nullable=True),
    Column("user_id", Key, nullable=False),
    instant("changed_at"),
    Index("ix_setting_change_name", "name", "id"),
)

setting_added = Table(
    "setting_added",
    metadata,
    Column("name", Name, primary_key=True),
    Column("category", Name, nullable=False),
    Column("component", Name, nullable=False),
    Column("instance", Name, nullable=False),
    Column("description", Text, nullable=False),
    Column("value", Text, nullable=False),
    instant("created_at"),
)
"""Settings that administrators' own tools keep here; `value` is what each was added with."""
