"""VLAN IP ranges: the public addresses of a zone, and those of Direct networks. Guide: "Public IP Addresses"."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, select

from pileus.server.auth.visibility import owner as owner_of
from pileus.server.auth.visibility import scope
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import vlan as vlans
from pileus.server.db.queries import vlan_ip_range as ranges
from pileus.server.db.queries.network import Net
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.queries.public_ip import UNTAGGED
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.network import network, vlan_ip_range
from pileus.server.db.tables.place import pod, zone
from pileus.server.db.transaction import Tx
from pileus.server.domain.address import Range, address, range_in, subnet
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.network import GuestIpType, NetworkType
from pileus.server.events import record_by, types
from pileus.server.services.paging import bounds
from pileus.server.services.vlan import refuse_taken, vlan_id


def create(
    tx: Tx,
    caller: Caller,
    *,
    start_ip: str,
    end_ip: str | None,
    gateway: str | None,
    netmask: str | None,
    vlan: str | None,
    zone_id: int | None,
    network_id: int | None,
    pod_id: int | None,
    account_name: str | None,
    domain_id: int | None,
    for_virtual_network: bool,
) -> dict[str, Any]:
    """A range of public addresses of a zone, or more addresses for a Direct network.

    Errors (431): addresses outside the subnet, a gateway inside the range, overlaps with other ranges or networks.
    """
    if network_id is not None:
        said = _Said(zone_id, pod_id, gateway, netmask, vlan, account_name, domain_id)
        range_id = _for_network(tx, network_id, said, start_ip=start_ip, end_ip=end_ip)
    elif not for_virtual_network:
        raise ParameterError("a range that is not for virtual networks needs a networkid", parameter="networkid")
    else:
        if zone_id is None:
            raise ParameterError("zoneid is required for a range of public addresses", parameter="zoneid")
        if pod_id is not None:
            raise ParameterError("public addresses belong to the whole zone, not to a pod", parameter="podid")
        if gateway is None or netmask is None:
            raise ParameterError("gateway and netmask are required", parameter="gateway")
        if domain_id is not None and account_name is None:
            raise ParameterError("domainid says whose account is meant: it needs account", parameter="account")
        here = _zone(tx, zone_id)
        vlans.hold(tx, zone_id)
        whole = subnet(gateway, netmask)
        addresses = range_in(whole, start_ip, end_ip)
        tag = UNTAGGED if vlan is None or vlan.lower() == UNTAGGED else str(vlan_id(vlan))
        _check(tx, here, whole, addresses, gateway, tag)
        account_id = None
        if account_name is not None:
            account_id = owner_of(tx, caller, account_name, domain_id).account_id
        networks.public_of(tx, zone_id)
        range_id = ranges.add(
            tx,
            zone_id=zone_id,
            vlan=tag,
            gateway=str(IPv4Address(gateway)),
            netmask=str(whole.netmask),
            addresses=addresses,
            for_virtual_network=True,
            account_id=account_id,
        )
    row = ranges.by_id(tx, range_id)
    _record(tx, caller, types.VLAN_IP_RANGE_CREATE, "Created", row)
    return _views(tx, [row])[0]


def delete(tx: Tx, caller: Caller, range_id: int) -> None:
    """Remove a range none of whose addresses is in use (536 otherwise)."""
    busy = ranges.lock_free(tx, range_id)
    if busy:
        raise ResourceInUse(f"{busy} addresses of the range are in use")
    row = ranges.by_id(tx, range_id)
    ranges.remove(tx, range_id)
    _record(tx, caller, types.VLAN_IP_RANGE_DELETE, "Deleted", row)


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    range_id: int | None,
    zone_id: int | None,
    network_id: int | None,
    pod_id: int | None,
    vlan: str | None,
    account_name: str | None,
    domain_id: int | None,
    for_virtual_network: bool | None,
    keyword: str | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Ranges of the cloud; with an account, those dedicated to it."""
    offset, limit = bounds(tx, page_number, page_size)
    where: list[ColumnElement[bool]] = [vlan_ip_range.c.live == 1]
    for column, wanted in (
        (vlan_ip_range.c.id, range_id),
        (vlan_ip_range.c.zone_id, zone_id),
        (vlan_ip_range.c.network_id, network_id),
        (vlan_ip_range.c.pod_id, pod_id),
    ):
        if wanted is not None:
            where.append(column == wanted)
    if vlan is not None:
        where.append(vlan_ip_range.c.vlan == vlan.lower().removeprefix("vlan://"))
    if for_virtual_network is not None:
        where.append(vlan_ip_range.c.for_virtual_network == int(for_virtual_network))
    if account_name is not None or domain_id is not None:
        within = scope(caller, account=account_name, domain_id=domain_id, tx=tx)
        owned = select(account.c.id).where(*within.where(account.c.id, account.c.domain_id))
        where.append(vlan_ip_range.c.account_id.in_(owned))
    if keyword:
        where.append(like(vlan_ip_range.c.vlan, keyword))
    rows, count = page(tx, vlan_ip_range, where, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, range_id: int) -> dict[str, Any]:
    """One range, as lists show it."""
    return _views(tx, [ranges.by_id(tx, range_id)])[0]


@dataclass(frozen=True)
class _Said:
    """What the caller says of a range that its network says already."""

    zone_id: int | None
    pod_id: int | None
    gateway: str | None
    netmask: str | None
    vlan: str | None
    account_name: str | None
    domain_id: int | None


def _for_network(tx: Tx, network_id: int, said: _Said, *, start_ip: str, end_ip: str | None) -> int:
    net = networks.by_id(tx, network_id)
    if net.guest_ip_type is not GuestIpType.DIRECT or net.gateway is None:
        raise ParameterError("only Direct networks take ranges of their own", parameter="networkid")
    _agree(net, said)
    vlans.hold(tx, net.zone_id)
    if not networks.use(tx, network_id):
        raise ParameterError(f"network {net.name} is being deleted", parameter="networkid")
    addresses = range_in(net.subnet, start_ip, end_ip)
    if address(net.gateway, "gateway") in addresses:
        raise ParameterError(f"the range holds the gateway {net.gateway}", parameter="startip")
    for row in ranges.of_zone(tx, net.zone_id):
        _refuse_overlap(row, addresses)
    return ranges.add(
        tx,
        zone_id=net.zone_id,
        vlan=str(net.vnet),
        gateway=net.gateway,
        netmask=str(net.subnet.netmask),
        addresses=addresses,
        for_virtual_network=False,
        network_id=network_id,
        account_id=None if net.is_shared else net.account_id,
    )


def _agree(net: Net, said: _Said) -> None:
    """What is said twice must be the same."""
    for parameter, told, known in (
        ("zoneid", said.zone_id, net.zone_id),
        ("gateway", said.gateway, net.gateway),
        ("netmask", said.netmask, str(net.subnet.netmask)),
        ("vlan", None if said.vlan is None else vlan_id(said.vlan), net.vnet),
    ):
        if told is not None and told != known:
            what = "is in another zone" if parameter == "zoneid" else f"has {parameter} {known}"
            raise ParameterError(f"network {net.name} {what}: {parameter} may be left out", parameter=parameter)
    if said.pod_id is not None:
        raise ParameterError("a network's addresses belong to the whole zone, not to a pod", parameter="podid")
    if said.account_name is not None or said.domain_id is not None:
        raise ParameterError("the range of a network belongs to the network's account", parameter="account")


def _check(tx: Tx, here: RowMapping, whole: IPv4Network, addresses: Range, gateway: str, tag: str) -> None:
    if here["network_type"] != NetworkType.ADVANCED:
        raise ParameterError("a Basic zone has no virtual networks", parameter="forvirtualnetwork")
    inside = IPv4Address(gateway)
    if inside in addresses:
        raise ParameterError(f"the range {addresses.first}-{addresses.last} holds the gateway", parameter="gateway")
    if inside in (whole.network_address, whole.broadcast_address) and whole.prefixlen < 31:
        raise ParameterError(f"gateway {inside} is not usable in {whole}", parameter="gateway")
    if here["guest_cidr"] and whole.overlaps(IPv4Network(here["guest_cidr"])):
        raise ParameterError(f"{whole} overlaps the zone's guest network {here['guest_cidr']}", parameter="startip")
    for row in ranges.of_zone(tx, here["id"]):
        _refuse_overlap(row, addresses)
        other = IPv4Network(f"{row['gateway']}/{row['netmask']}", strict=False)
        if other.overlaps(whole) and (row["vlan"], row["gateway"], other) != (tag, str(inside), whole):
            raise ParameterError(
                f"{whole} overlaps {other} on VLAN {row['vlan']}: ranges of one subnet share gateway, netmask and VLAN",
                parameter="gateway",
            )
    if tag != UNTAGGED:
        refuse_taken(tx, here, int(tag), public=True)


def _refuse_overlap(row: RowMapping, addresses: Range) -> None:
    if ranges.addresses_of(row).overlaps(addresses):
        raise ParameterError(f"the range overlaps {row['start_ip']}-{row['end_ip']} of this zone", parameter="startip")


def _zone(tx: Tx, zone_id: int) -> RowMapping:
    row = tx.one(select(zone).where(zone.c.id == zone_id, zone.c.live == 1))
    if row is None:
        raise ParameterError("there is no such zone", parameter="zoneid")
    return row


def _views(tx: Tx, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    accounts = related(tx, account, (row["account_id"] for row in rows))
    domains = related(tx, domain, (row["domain_id"] for row in accounts.values()))
    zones = related(tx, zone, (row["zone_id"] for row in rows))
    pods = related(tx, pod, (row["pod_id"] for row in rows))
    nets = related(tx, network, (row["network_id"] for row in rows))
    found = []
    for row in rows:
        owner = accounts.get(row["account_id"])
        there = pods.get(row["pod_id"])
        net = nets.get(row["network_id"])
        found.append(
            {
                "id": row["uuid"],
                "for_virtual_network": bool(row["for_virtual_network"]),
                "zone_id": zones[row["zone_id"]]["uuid"],
                "vlan": row["vlan"],
                "account": owner["name"] if owner else None,
                "domain_id": domains[owner["domain_id"]]["uuid"] if owner else None,
                "domain": domains[owner["domain_id"]]["name"] if owner else None,
                "pod_id": there["uuid"] if there else None,
                "pod_name": there["name"] if there else None,
                "gateway": row["gateway"],
                "netmask": row["netmask"],
                "description": row["vlan"],
                "start_ip": row["start_ip"],
                "end_ip": row["end_ip"],
                "network_id": net["uuid"] if net else None,
            }
        )
    return found


def _record(tx: Tx, caller: Caller, type: str, verb: str, row: RowMapping) -> None:
    record_by(
        tx,
        caller,
        type,
        f"{verb} VLAN IP range {row['start_ip']}-{row['end_ip']}",
        kind="VlanIpRange",
        id=row["id"],
        zone_id=row["zone_id"],
    )
