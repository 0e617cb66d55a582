"""Who uses which VLAN of a zone: its own range, networks with a VLAN of their own, and public addresses."""

from sqlalchemy import func, select, update

from pileus.server.db.queries.public_ip import UNTAGGED
from pileus.server.db.tables.network import network, vlan_ip_range
from pileus.server.db.tables.place import zone, zone_vnet
from pileus.server.db.transaction import Tx
from pileus.wire.places import Isolation


def hold(tx: Tx, zone_id: int) -> None:
    """Hold the zone's VLANs and address ranges to the end of the transaction: two that ask for the same come one after
    the other, and the second sees what the first has taken."""
    tx.execute(update(zone).where(zone.c.id == zone_id).values(id=zone_id))


def in_zone_range(tx: Tx, zone_id: int, tag: int) -> bool:
    """Whether the VLAN is one of those that virtual networks are given."""
    here = (zone_vnet.c.zone_id == zone_id, zone_vnet.c.vnet == tag)
    return bool(tx.scalar(select(func.count()).select_from(zone_vnet).where(*here)))


def network_on(tx: Tx, zone_id: int, tag: int) -> str | None:
    """The name of a live network that is on this VLAN."""
    mine = select(network.c.name).where(
        network.c.live == 1,
        network.c.zone_id == zone_id,
        network.c.isolation == str(Isolation.VLAN),
        network.c.vnet == tag,
    )
    found = tx.scalar(mine.order_by(network.c.id).limit(1))
    return None if found is None else str(found)


def has_public(tx: Tx, zone_id: int, tag: int) -> bool:
    """Whether public addresses of the zone lie on this VLAN."""
    there = (vlan_ip_range.c.live == 1, vlan_ip_range.c.zone_id == zone_id, vlan_ip_range.c.for_virtual_network == 1)
    return bool(tx.scalar(select(func.count()).where(*there, vlan_ip_range.c.vlan == str(tag))))


def specified(tx: Tx, zone_id: int, first: int, last: int) -> list[int]:
    """VLANs from first to last that networks specified, or public addresses lie on."""
    of_networks = select(network.c.vnet).where(
        network.c.live == 1,
        network.c.zone_id == zone_id,
        network.c.isolation == str(Isolation.VLAN),
        network.c.specified_vlan == 1,
    )
    public = select(vlan_ip_range.c.vlan).where(
        vlan_ip_range.c.live == 1,
        vlan_ip_range.c.zone_id == zone_id,
        vlan_ip_range.c.for_virtual_network == 1,
        vlan_ip_range.c.vlan != UNTAGGED,
    )
    tags = {int(tag) for query in (of_networks, public) for tag in tx.execute(query).scalars()}
    return sorted(tag for tag in tags if first <= tag <= last)
