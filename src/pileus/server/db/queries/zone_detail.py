"""What a zone has of its own where a setting would hold otherwise."""

from sqlalchemy import bindparam, delete, insert, select

from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.zone_detail import zone_detail
from pileus.server.db.transaction import Tx


def of(tx: Tx, zone_id: int, name: str) -> str | None:
    """The value of a detail, or None when the zone has none of this name."""
    row = _ONE.one(tx, the_zone_id=zone_id, the_name=name)
    return None if row is None else str(row["value"])


def put(tx: Tx, zone_id: int, name: str, value: str | None) -> None:
    """Give the zone a detail, or (None) take it away."""
    tx.execute(delete(zone_detail).where(zone_detail.c.zone_id == zone_id, zone_detail.c.name == name))
    if value is not None:
        tx.execute(insert(zone_detail).values(zone_id=zone_id, name=name, value=value))


def forget(tx: Tx, zone_id: int) -> None:
    """Take away all details of a zone."""
    tx.execute(delete(zone_detail).where(zone_detail.c.zone_id == zone_id))


_ONE = Prepared(
    select(zone_detail.c.value).where(
        zone_detail.c.zone_id == bindparam("the_zone_id"), zone_detail.c.name == bindparam("the_name")
    )
)
