"""Zones. Guide: "Availability Zones", "VLAN Provisioning"."""

import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping

from pileus.server.config import keys
from pileus.server.db.queries import vlan as vlans
from pileus.server.db.queries import vlan_ip_range as ranges
from pileus.server.db.queries import zone as zones
from pileus.server.db.queries.ancestry import offered
from pileus.server.db.queries.page import related
from pileus.server.db.tables.account import domain
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Role
from pileus.server.domain.address import address, cidr, vlan_range
from pileus.server.domain.caller import Caller
from pileus.server.domain.dns_name import dns_domain
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.host import AllocationState
from pileus.server.domain.ids import Domain, Id, Zone
from pileus.server.domain.network import NetworkType
from pileus.server.elements import router_home, virtual_router
from pileus.server.events import record_by, types
from pileus.server.services.choice import one_of
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds

ROUTER_LAUNCHER = keys.router_launcher.name
"""The one detail of a zone that means something; others are taken and let go, as older clients send them."""
HIGHEST_VLAN = 4094
MOST_VLANS = 65536
DHCP_PROVIDER = "VirtualRouter"
HIGHEST_VNI = (1 << 24) - 1


class Isolation(StrEnum):
    """How guest networks of an Advanced zone are kept apart."""

    VXLAN = "vxlan"
    VLAN = "vlan"


def create(
    tx: Tx,
    caller: Caller,
    *,
    name: str,
    dns1: str,
    dns2: str | None,
    internal_dns1: str,
    internal_dns2: str | None,
    guest_cidr: str | None,
    vlan: str | None,
    network_type: str,
    security_groups: bool,
    network_domain: str | None,
    domain_id: Id[Domain] | None,
    allocation_state: str | None,
    isolation: str | None,
) -> dict[str, Any]:
    """A new zone, with its VLANs when it is Advanced. Errors: a used name, bad addresses, bad VLANs."""
    kind = one_of(NetworkType, network_type, "networktype")
    checked_name(name, "name")
    if zones.name_taken(tx, name):
        raise ParameterError(f"a zone named {name} exists already", parameter="name")
    for value, parameter in (
        (dns1, "dns1"),
        (dns2, "dns2"),
        (internal_dns1, "internaldns1"),
        (internal_dns2, "internaldns2"),
    ):
        if value:
            address(value, parameter)
    if security_groups:
        # A zone that says its guests are kept apart while nobody does it would be worse than none.
        raise ParameterError("no host enforces security groups yet: leave it false", parameter="securitygroupenabled")
    if kind is NetworkType.BASIC and vlan:
        raise ParameterError("a Basic zone has no VLAN range", parameter="vlan")
    if kind is NetworkType.BASIC and guest_cidr:
        raise ParameterError("a Basic zone has no guest CIDR: its pods have ranges", parameter="guestcidraddress")
    guest = cidr(guest_cidr, "guestcidraddress") if guest_cidr else None
    if kind is NetworkType.ADVANCED and guest is None:
        guest = cidr("10.1.1.0/24", "guestcidraddress")
    kept_apart = str(one_of(Isolation, isolation or "vxlan", "isolation"))
    zone_id = zones.add(
        tx,
        name=name,
        dns1=dns1,
        dns2=dns2 or None,
        internal_dns1=internal_dns1,
        internal_dns2=internal_dns2 or None,
        guest_cidr=str(guest) if guest else None,
        vlan_range=vlan or None,
        network_type=str(kind),
        isolation=kept_apart if kind is NetworkType.ADVANCED else "untagged",
        domain_id=domain_id,
        network_domain=dns_domain(network_domain, "domain") if network_domain else None,
        security_groups=int(security_groups),
        allocation_state=str(one_of(AllocationState, allocation_state or "Enabled", "allocationstate")),
        token=secrets.token_hex(16),
    )
    if vlan:
        _set_vlans(tx, zone_id, vlan, kept_apart)
    _record(tx, caller, types.ZONE_CREATE, f"Zone {name} was created", zone_id)
    return view(tx, caller, zone_id)


def update(
    tx: Tx,
    caller: Caller,
    zone_id: Id[Zone],
    *,
    name: str | None,
    dns1: str | None,
    dns2: str | None,
    internal_dns1: str | None,
    internal_dns2: str | None,
    guest_cidr: str | None,
    vlan: str | None,
    network_domain: str | None,
    is_public: bool | None,
    allocation_state: str | None,
    dhcp_provider: str | None,
    details: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Change a zone. A narrower VLAN range is refused while VLANs outside it are in use (536)."""
    row = zones.by_id(tx, zone_id)
    basic = row["network_type"] == NetworkType.BASIC
    changes: dict[str, Any] = {}
    if name is not None:
        if zones.name_taken(tx, checked_name(name, "name"), other_than=zone_id):
            raise ParameterError(f"a zone named {name} exists already", parameter="name")
        changes["name"] = name
    for column, value, parameter, needed in (
        ("dns1", dns1, "dns1", True),
        ("dns2", dns2, "dns2", False),
        ("internal_dns1", internal_dns1, "internaldns1", True),
        ("internal_dns2", internal_dns2, "internaldns2", False),
    ):
        if value is not None:
            changes[column] = str(address(value, parameter)) if value or needed else None
    if guest_cidr is not None:
        if basic:
            raise ParameterError("a Basic zone has no guest CIDR: its pods have ranges", parameter="guestcidraddress")
        guests = cidr(guest_cidr, "guestcidraddress")
        vlans.hold(tx, zone_id)
        for other in ranges.subnets(tx, zone_id):
            if other.overlaps(guests):
                raise ParameterError(f"{guests} overlaps {other} of the zone's IP ranges", parameter="guestcidraddress")
        changes["guest_cidr"] = str(guests)
    if network_domain is not None:
        changes["network_domain"] = dns_domain(network_domain, "domain") if network_domain else None
    if is_public:
        changes["domain_id"] = None
    elif is_public is False and row["domain_id"] is None:
        raise ParameterError("a public zone cannot be given to a domain later: others may use it", parameter="ispublic")
    if allocation_state is not None:
        changes["allocation_state"] = str(one_of(AllocationState, allocation_state, "allocationstate"))
    if dhcp_provider is not None and dhcp_provider.lower() != DHCP_PROVIDER.lower():
        raise ParameterError(f"the DHCP provider of a zone is {DHCP_PROVIDER}", parameter="dhcpprovider")
    if vlan is not None:
        if basic:
            raise ParameterError("a Basic zone has no VLAN range", parameter="vlan")
        _set_vlans(tx, zone_id, vlan, row["isolation"])
        changes["vlan_range"] = vlan
    if changes:
        zones.change(tx, zone_id, **changes)
    for detail in details:
        if ROUTER_LAUNCHER in detail:
            router_home.choose(tx, zone_id, detail[ROUTER_LAUNCHER])
    if any(changes.get(served, row[served]) != row[served] for served in ("name", "dns1", "dns2")):
        virtual_router.zone_changed(tx, zone_id)
    _record(tx, caller, types.ZONE_EDIT, f"Zone {changes.get('name', row['name'])} was changed", zone_id)
    return view(tx, caller, zone_id)


def delete(tx: Tx, caller: Caller, zone_id: Id[Zone]) -> None:
    """Remove an empty zone; 536 says what still stands in it."""
    still_there = zones.users_of(tx, zone_id)
    if still_there:
        text = ", ".join(f"{n} {name}" for name, n in still_there.items())
        raise ResourceInUse(f"the zone still has {text}: remove them first")
    zones.remove(tx, zone_id)
    _record(tx, caller, types.ZONE_DELETE, f"Zone {zones.by_id(tx, zone_id)['name']} was deleted", zone_id)


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    zone_id: int | None,
    domain_id: int | None,
    available: bool | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Zones the caller may use: public ones and those of the caller's domain or a domain above it.

    `available` True keeps those that take new guests (users see no others), False those in which the caller has some.
    """
    offset, limit = bounds(tx, page, page_size)
    above = caller.role in (Role.DOMAIN_ADMIN, Role.RESOURCE_ADMIN)
    rows, count = zones.visible(
        tx,
        offered=None if caller.is_admin else offered(tx, zone.c.domain_id, caller.domain_path, with_below=above),
        zone_id=zone_id,
        keyword=keyword,
        domain_id=domain_id,
        enabled_only=bool(available) or (available is None and not caller.is_admin),
        with_vms_of=caller.account_id if available is False else None,
        offset=offset,
        limit=limit,
    )
    return _views(tx, caller, rows), count


def view(tx: Tx, caller: Caller, zone_id: int) -> dict[str, Any]:
    """One zone, as lists show it."""
    return _views(tx, caller, [zones.by_id(tx, zone_id)])[0]


def _set_vlans(tx: Tx, zone_id: int, vlan: str, isolation: str) -> None:
    first, last = vlan_range(vlan, highest=HIGHEST_VLAN if isolation == "vlan" else HIGHEST_VNI)
    if last - first >= MOST_VLANS:
        raise ParameterError(f"a zone's VLAN range holds at most {MOST_VLANS} ids", parameter="vlan")
    vlans.hold(tx, zone_id)
    if isolation == "vlan" and (specified := vlans.specified(tx, zone_id, first, last)):
        raise ResourceInUse(f"VLAN {specified[0]} of {vlan} was given to a network or to public addresses")
    busy = zones.set_vnets(tx, zone_id, first, last)
    if busy:
        more = f" and {len(busy) - 1} more" if len(busy) > 1 else ""
        raise ResourceInUse(f"VLAN {busy[0]}{more} outside {vlan} in use by networks: delete them first")


def _views(tx: Tx, caller: Caller, rows: list[RowMapping]) -> list[dict[str, Any]]:
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    return [_view(row, domains, inner=caller.is_admin) for row in rows]


def _view(row: RowMapping, domains: dict[int, RowMapping], *, inner: bool) -> dict[str, Any]:
    owner = domains.get(row["domain_id"])
    found = {
        "id": row["uuid"],
        "name": row["name"],
        "network_type": row["network_type"],
        "security_groups_enabled": bool(row["security_groups"]),
        "allocation_state": row["allocation_state"],
        "domain_id": owner["uuid"] if owner else None,
        "domain_name": owner["name"] if owner else None,
        "domain": row["network_domain"],
        "dhcp_provider": DHCP_PROVIDER,
        "zone_token": row["token"] if inner else None,
        "local_storage_enabled": False,
    }
    if inner:
        found |= {
            "dns1": row["dns1"],
            "dns2": row["dns2"],
            "internal_dns1": row["internal_dns1"],
            "internal_dns2": row["internal_dns2"],
            "guest_cidr_address": row["guest_cidr"],
            "vlan": row["vlan_range"],
            "isolation": row["isolation"],
        }
    return found


def _record(tx: Tx, caller: Caller, event: str, text: str, zone_id: int) -> None:
    record_by(tx, caller, event, text, kind="Zone", id=zone_id, zone_id=zone_id)
