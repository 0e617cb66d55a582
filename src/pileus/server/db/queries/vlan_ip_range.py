"""Ranges of public addresses, and of addresses of Direct networks."""

from ipaddress import IPv4Network

from sqlalchemy import RowMapping, func, insert, select, update

from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.tables.network import public_ip, vlan_ip_range
from pileus.server.db.transaction import Tx
from pileus.server.domain.address import Range, address
from pileus.server.domain.network import IpState


def by_id(tx: Tx, range_id: int) -> RowMapping:
    """The range, removed or not."""
    row = tx.one(select(vlan_ip_range).where(vlan_ip_range.c.id == range_id))
    if row is None:
        raise LookupError(f"VLAN IP range {range_id}")
    return row


def add(
    tx: Tx,
    *,
    zone_id: int,
    vlan: str,
    gateway: str,
    netmask: str,
    addresses: Range,
    for_virtual_network: bool,
    pod_id: int | None = None,
    network_id: int | None = None,
    account_id: int | None = None,
) -> int:
    """Insert a range with one free row per address."""
    range_id = tx.insert(
        insert(vlan_ip_range).values(
            zone_id=zone_id,
            pod_id=pod_id,
            network_id=network_id,
            account_id=account_id,
            vlan=vlan,
            gateway=gateway,
            netmask=netmask,
            start_ip=str(addresses.first),
            end_ip=str(addresses.last),
            for_virtual_network=int(for_virtual_network),
            created_at=tx.now,
        )
    )
    public_ips.add_range(tx, range_id=range_id, zone_id=zone_id, addresses=addresses)
    return range_id


def remove(tx: Tx, range_id: int) -> None:
    """Take a range and its addresses out of use."""
    tx.execute(update(public_ip).where(public_ip.c.range_id == range_id).values(live=None))
    tx.execute(update(vlan_ip_range).where(vlan_ip_range.c.id == range_id).values(live=None, removed_at=tx.now))


def undedicate(tx: Tx, account_id: int) -> None:
    """Public ranges dedicated to an account that goes are everybody's again."""
    mine = (vlan_ip_range.c.account_id == account_id, vlan_ip_range.c.for_virtual_network == 1)
    tx.execute(update(vlan_ip_range).where(vlan_ip_range.c.live == 1, *mine).values(account_id=None))


def lock_free(tx: Tx, range_id: int) -> int:
    """Hold the range's addresses to the end of the transaction; returns how many of them are in use."""
    mine = (public_ip.c.range_id == range_id, public_ip.c.live == 1)
    tx.execute(update(public_ip).where(*mine).values(range_id=range_id))
    busy = select(func.count()).select_from(public_ip).where(*mine, public_ip.c.state != str(IpState.FREE))
    return int(tx.scalar(busy))


def of_zone(tx: Tx, zone_id: int) -> list[RowMapping]:
    """Live ranges of a zone."""
    return tx.all(select(vlan_ip_range).where(vlan_ip_range.c.live == 1, vlan_ip_range.c.zone_id == zone_id))


def subnets(tx: Tx, zone_id: int) -> set[IPv4Network]:
    """The subnets that ranges of a zone lie in."""
    return {IPv4Network(f"{row['gateway']}/{row['netmask']}", strict=False) for row in of_zone(tx, zone_id)}


def addresses_of(row: RowMapping) -> Range:
    """The addresses of a range."""
    return Range(address(row["start_ip"], "startip"), address(row["end_ip"], "endip"))
