"""Details of a zone: settings that hold in this zone alone."""

from sqlalchemy import Column, ForeignKey, Table, Text

from pileus.server.db.tables.column import Key, Name, metadata

zone_detail = Table(
    "zone_detail",
    metadata,
    Column("zone_id", Key, ForeignKey("zone.id"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
)
