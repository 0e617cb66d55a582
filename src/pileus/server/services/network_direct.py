"""Direct networks: a VLAN and an address range that an administrator gives. Guide: "Adding an Additional Network"."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import RowMapping

from pileus.server.auth.visibility import owner as owner_of
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import vlan as vlans
from pileus.server.db.queries import vlan_ip_range as ranges
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT
from pileus.server.domain.address import Range, range_in, subnet
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.network import GuestIpType, NetworkState
from pileus.server.services.vlan import refuse_taken, vlan_id
from pileus.wire.places import Isolation


@dataclass(frozen=True)
class Subnet:
    """What createNetwork says of addresses; all None for a virtual network with the zone's guest CIDR."""

    gateway: str | None = None
    netmask: str | None = None
    start_ip: str | None = None
    end_ip: str | None = None


def owner(
    tx: Tx, caller: Caller, account_name: str | None, domain_id: int | None, is_shared: bool | None
) -> tuple[Owner, bool]:
    """Account-specific with an account; otherwise zone-wide, and with only a domain, shared with that domain."""
    if account_name is not None:
        if is_shared:
            raise ParameterError("a network of one account is not shared", parameter="isshared")
        return owner_of(tx, caller, account_name, domain_id), False
    if is_shared is False:
        raise ParameterError("a network that is not shared needs an account", parameter="account")
    return Owner(SYSTEM_ACCOUNT, ROOT_DOMAIN if domain_id is None else domain_id, caller.user_id), True


def add(
    tx: Tx, owner: Owner, here: RowMapping, addresses: Subnet, vlan: str | None, *, is_shared: bool, **values: Any
) -> int:
    """A Direct network with its VLAN and its first range; `values` are its other columns.

    Errors (431): missing or unusable addresses, a VLAN in use, addresses that others have.
    """
    if not (addresses.gateway and addresses.netmask and addresses.start_ip):
        raise ParameterError("a Direct network needs gateway, netmask and startip", parameter="gateway")
    if vlan is None:
        raise ParameterError("a Direct network needs the VLAN id of its network", parameter="vlan")
    tag = vlan_id(vlan)
    whole = subnet(addresses.gateway, addresses.netmask)
    guests = range_in(whole, addresses.start_ip, addresses.end_ip)
    gateway = IPv4Address(addresses.gateway)
    if gateway in guests:
        raise ParameterError(f"the range {guests.first}-{guests.last} holds the gateway", parameter="gateway")
    vlans.hold(tx, here["id"])
    refuse_taken(tx, here, tag, public=False)
    _refuse_overlap(tx, here, whole, guests)
    network_id = networks.add(
        tx,
        zone_id=here["id"],
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        state=str(NetworkState.SETUP),
        guest_ip_type=str(GuestIpType.DIRECT),
        isolation=str(Isolation.VLAN),
        vnet=tag,
        specified_vlan=1,
        cidr=str(whole),
        gateway=str(gateway),
        is_shared=int(is_shared),
        **values,
    )
    ranges.add(
        tx,
        zone_id=here["id"],
        vlan=str(tag),
        gateway=str(gateway),
        netmask=str(whole.netmask),
        addresses=guests,
        for_virtual_network=False,
        network_id=network_id,
        account_id=None if is_shared else owner.account_id,
    )
    return network_id


def _refuse_overlap(tx: Tx, here: RowMapping, whole: IPv4Network, guests: Range) -> None:
    """Nobody else may have the addresses; and what a guest reaches through a router must not look like a neighbour."""
    for row in ranges.of_zone(tx, here["id"]):
        if ranges.addresses_of(row).overlaps(guests):
            raise ParameterError(
                f"the range overlaps {row['start_ip']}-{row['end_ip']} of this zone", parameter="startip"
            )
        public = IPv4Network(f"{row['gateway']}/{row['netmask']}", strict=False)
        if row["for_virtual_network"] and public.overlaps(whole):
            raise ParameterError(f"{whole} overlaps {public}, where public addresses lie", parameter="gateway")
    if here["guest_cidr"] and whole.overlaps(IPv4Network(here["guest_cidr"])):
        raise ParameterError(f"{whole} overlaps the zone's guest network {here['guest_cidr']}", parameter="gateway")
