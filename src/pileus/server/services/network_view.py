"""What the API shows of networks: one page costs a fixed number of queries."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, or_, select

from pileus.server.auth.visibility import below, scope
from pileus.server.config import keys, value
from pileus.server.db.queries.ancestry import domains_above
from pileus.server.db.queries.page import grouped, like, page, related
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.network import network, vlan_ip_range
from pileus.server.db.tables.offering import network_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, Role
from pileus.server.domain.caller import Caller
from pileus.server.domain.network import GuestIpType
from pileus.server.services.choice import one_of
from pileus.server.services.paging import bounds
from pileus.wire.places import Isolation, Traffic

_own = network.alias("own")
_offered = network.alias("offered")
"""Made once: an alias copies every column of its table."""

_BROADCAST = {Isolation.VLAN: "Vlan", Isolation.VXLAN: "Vxlan", Isolation.UNTAGGED: "Native"}

_SERVICES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "dhcp": ("Dhcp", ()),
    "dns": ("Dns", (("AllowDnsSuffixModification", "true"),)),
    "gateway": ("Gateway", ()),
    "source-nat": ("SourceNat", (("SupportedSourceNatTypes", "peraccount"),)),
    "user-data": ("UserData", ()),
    "port-forwarding": ("PortForwarding", (("SupportedProtocols", "tcp,udp"),)),
}


def one(tx: Tx, caller: Caller, network_id: int) -> dict[str, Any]:
    """One network, as lists show it."""
    return views(tx, caller, tx.all(select(network).where(network.c.id == network_id)))[0]


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    network_id: int | None = None,
    account_name: str | None = None,
    domain_id: int | None = None,
    zone_id: int | None = None,
    type: str | None = None,
    is_system: bool | None = None,
    is_shared: bool | None = None,
    is_default: bool | None = None,
    traffic_type: str | None = None,
    keyword: str | None = None,
    list_all: bool | None = None,
    is_recursive: bool | None = None,
    page_number: int | None = None,
    page_size: int | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Networks within the bounds of the call, and the shared ones that are offered to the caller."""
    offset, limit = bounds(tx, page_number, page_size)
    within = scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=network_id is not None,
        tx=tx,
    )
    owned = within.where(network.c.account_id, network.c.domain_id)
    where: list[ColumnElement[bool]] = [network.c.live == 1]
    if within.account_id is not None:
        # The few ids first: an OR beside ORDER BY is answered by walking every network there is.
        mine = select(_own.c.id).where(_own.c.live == 1, _own.c.account_id == within.account_id)
        few = mine.union(_shared(tx, caller)).subquery("few")
        where.append(network.c.id.in_(select(few.c.id)))
    elif owned:
        where.append(or_(and_(*owned), network.c.id.in_(_shared(tx, caller))))
    # System networks are shown to administrators, and only when asked for.
    where.append(network.c.is_system == int(bool(is_system) and caller.is_admin))
    if is_system and not caller.is_admin:
        return [], 0
    if network_id is not None:
        where.append(network.c.id == network_id)
    if zone_id is not None:
        where.append(network.c.zone_id == zone_id)
    if type is not None:
        where.append(network.c.guest_ip_type == str(one_of(GuestIpType, type, "type")))
    if is_shared is not None:
        where.append(network.c.is_shared == int(is_shared))
    if is_default is not None:
        where.append(network.c.is_default == int(is_default))
    if traffic_type is not None:
        where.append(network.c.traffic_type == str(one_of(Traffic, traffic_type, "traffictype")))
    if keyword:
        where.append(like(network.c.name, keyword))
    rows, count = page(tx, network, where, offset=offset, limit=limit)
    return views(tx, caller, rows), count


def views(tx: Tx, caller: Caller, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    """The views of some networks; VLANs are shown to root administrators only."""
    accounts = related(tx, account, (row["account_id"] for row in rows), "name")
    domains = related(tx, domain, (row["domain_id"] for row in rows), "uuid", "name")
    zones = related(tx, zone, (row["zone_id"] for row in rows))
    offerings = related(tx, network_offering, (row["offering_id"] for row in rows))
    ranges = grouped(tx, vlan_ip_range, (row["id"] for row in rows), vlan_ip_range.c.network_id)
    inherited = value(tx, keys.allow_subdomain_network_access)
    return [
        {
            **_place(row, zones[row["zone_id"]], offerings[row["offering_id"]], inherited),
            **_addresses(row, ranges[row["id"]]),
            **_broadcast(row, inner=caller.is_admin),
            "account": None if row["is_shared"] else accounts[row["account_id"]]["name"],
            "domain_id": domains[row["domain_id"]]["uuid"],
            "domain": domains[row["domain_id"]]["name"],
        }
        for row in rows
    ]


def _shared(tx: Tx, caller: Caller) -> Any:
    """Shared networks the caller may use: of domains above, and for administrators also of those below.

    A query of its own, so that either side of the OR has its index.
    """
    every = select(_offered.c.id).where(_offered.c.live == 1, _offered.c.is_shared == 1)
    is_admin = caller.role in (Role.ADMIN, Role.RESOURCE_ADMIN, Role.DOMAIN_ADMIN)
    if is_admin and caller.domain_path == "/":
        return every
    above = domains_above(tx, caller.domain_path)
    if not value(tx, keys.allow_subdomain_network_access):
        above = [above[0], above[-1]]
    offering: ColumnElement[bool] = _offered.c.domain_id.in_(above)
    if is_admin:
        offering = or_(offering, _offered.c.domain_id.in_(select(domain.c.id).where(below(caller.domain_path))))
    return every.where(offering)


def _reaches_below(row: RowMapping, inherited: bool) -> bool:
    return inherited or bool(row["domain_id"] == ROOT_DOMAIN)


def _place(row: RowMapping, zone_row: RowMapping, offering: RowMapping, inherited: bool) -> dict[str, Any]:
    return {
        "id": row["uuid"],
        "name": row["name"],
        "display_text": row["display_text"],
        "traffic_type": row["traffic_type"],
        "zone_id": zone_row["uuid"],
        "zone_name": zone_row["name"],
        "network_offering_id": offering["uuid"],
        "network_offering_name": offering["name"],
        "network_offering_display_text": offering["display_text"],
        "network_offering_availability": offering["availability"],
        "is_shared": bool(row["is_shared"]),
        "is_system": bool(row["is_system"]),
        "is_default": bool(row["is_default"]),
        "state": row["state"],
        "related": row["uuid"],
        "type": row["guest_ip_type"],
        "network_domain": row["network_domain"],
        "security_group_enabled": False,
        "tags": row["tags"],
        "acl_type": "Domain" if row["is_shared"] else "Account",
        "subdomain_access": _reaches_below(row, inherited) if row["is_shared"] else None,
        "can_use_for_deploy": not row["is_system"],
        "service": _services(offering["services"]),
        "dns1": row["dns1"] or zone_row["dns1"],
        "dns2": row["dns2"] if row["dns1"] else zone_row["dns2"],
    }


def _addresses(row: RowMapping, ranges: list[RowMapping]) -> dict[str, Any]:
    live = sorted((each for each in ranges if each["live"]), key=lambda each: int(each["id"]))
    return {
        "gateway": row["gateway"],
        "netmask": live[0]["netmask"] if live else _netmask(row["cidr"]),
        "cidr": row["cidr"],
        "start_ip": live[0]["start_ip"] if live else None,
        "end_ip": live[0]["end_ip"] if live else None,
    }


@lru_cache(256)
def _services(provided: str) -> tuple[dict[str, Any], ...]:
    """What networks of an offering say of their services: nearly all say the same."""
    return tuple(
        {"name": name, "capability": [{"name": key, "value": value} for key, value in capabilities]}
        for name, capabilities in (_SERVICES[each] for each in provided.split(",") if each in _SERVICES)
    )


@lru_cache(256)
def _netmask(cidr: str | None) -> str | None:
    return None if cidr is None else str(IPv4Network(cidr).netmask)


def _broadcast(row: RowMapping, *, inner: bool) -> dict[str, Any]:
    isolation = Isolation(row["isolation"])
    tag = row["vnet"]
    return {
        "broadcast_domain_type": _BROADCAST[isolation],
        "broadcast_uri": f"{isolation}://{tag}" if inner and tag is not None else None,
        "vlan": str(tag) if inner and tag is not None else None,
    }
