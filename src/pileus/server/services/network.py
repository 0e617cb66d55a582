"""Guest networks: created by users and administrators, or on demand for a guest. Guide: "Guest Virtual Networks"."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from typing import Any

from sqlalchemy import RowMapping, String, bindparam, func, select

from pileus.server.auth.visibility import owner as owner_of
from pileus.server.auth.visibility import require
from pileus.server.config import keys, value
from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import vlan as vlans
from pileus.server.db.seed import VIRTUAL_NETWORK_OFFERING
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.network import network
from pileus.server.db.tables.offering import network_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN
from pileus.server.domain.address import subnet
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError, PermissionDenied, ResourceInUse
from pileus.server.domain.network import Availability, GuestIpType, NetworkState, NetworkType
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.submit import submit
from pileus.server.services import network_direct, network_view
from pileus.server.services.naming import LONGEST, checked_name, checked_text
from pileus.server.services.network_direct import Subnet
from pileus.server.services.vlan import refuse_taken, vlan_id
from pileus.server.workflows.network_delete import network_delete
from pileus.server.workflows.network_restart import network_restart, network_update
from pileus.wire.places import Isolation, Traffic

LONGEST_PREFIX = 30
MOST_CARDS = 8
"""Most networks of one guest: its machine has slots for twelve devices, and disks need some."""


def for_deploy(tx: Tx, caller: Caller, owner: Owner, zone_id: int, network_ids: Sequence[int] | None) -> list[int]:
    """The networks of a new guest of `owner`, the default one first.

    Without `network_ids`: the account's own virtual network (made on demand) or, where the virtual network is
    unavailable, the one default Direct network the account may use. Errors: networks of another zone, given twice,
    without any that may be the default (431); not the owner's to use (531).
    """
    here = _zone(tx, zone_id)
    if network_ids:
        return _chosen(tx, owner, here, network_ids)
    availability = _virtual_offering(tx)["availability"]
    if here["network_type"] == NetworkType.ADVANCED and availability != Availability.UNAVAILABLE:
        return [_own_virtual(tx, owner, here)]
    direct = [row["id"] for row in _usable(tx, owner, zone_id) if _is_direct_default(row)]
    if not direct:
        raise ParameterError("the zone has no default network for this account", parameter="networkids")
    if len(direct) > 1:
        raise ParameterError(
            "the account may use several default networks: choose one by networkids", parameter="networkids"
        )
    return direct


def own_virtual(tx: Tx, owner: Owner, zone_id: int) -> int:
    """The account's own virtual network of an Advanced zone, made on demand."""
    here = _zone(tx, zone_id)
    if here["network_type"] != NetworkType.ADVANCED:
        raise ParameterError("a Basic zone has no virtual networks", parameter="zoneid")
    return _own_virtual(tx, owner, here)


def create(
    tx: Tx,
    caller: Caller,
    *,
    name: str,
    display_text: str,
    offering_id: int,
    zone_id: int,
    addresses: Subnet,
    vlan: str | None,
    account_name: str | None,
    domain_id: int | None,
    is_shared: bool | None,
    is_default: bool | None,
    network_domain: str | None,
    tags: Sequence[str] | None,
) -> dict[str, Any]:
    """A new network: Virtual for anybody, Direct (with VLAN and address range, shared or not) by root administrators.

    Errors: unusable addresses, VLAN or offering (431), what only administrators may say (531).
    """
    here = _zone(tx, zone_id)
    offering = _offering(tx, offering_id)
    if offering["is_system"] or offering["traffic_type"] != Traffic.GUEST:
        raise ParameterError(f"network offering {offering['name']} is for the system", parameter="networkofferingid")
    if offering["availability"] == Availability.UNAVAILABLE:
        raise ParameterError(f"network offering {offering['name']} is unavailable", parameter="networkofferingid")
    if here["network_type"] != NetworkType.ADVANCED:
        raise ParameterError("networks can be created in Advanced zones only", parameter="zoneid")
    if here["allocation_state"] != "Enabled" and not caller.is_admin:
        raise PermissionDenied("the zone is disabled")
    checked_name(name, "name")
    checked_text(display_text, "displaytext")
    wanted = _Wanted(name, display_text, _tags(tags), network_domain, is_default)
    if offering["guest_ip_type"] == GuestIpType.VIRTUAL:
        if is_shared or addresses.start_ip or addresses.end_ip:
            raise ParameterError("a Virtual network takes no address range and is never shared", parameter="isshared")
        tag = _specified(tx, caller, here, offering, vlan)
        owner = owner_of(tx, caller, account_name, domain_id)
        network_id = _add_virtual(tx, owner, here, offering, wanted, _guest_subnet(tx, here, addresses), tag=tag)
    else:
        if not caller.is_admin:
            raise PermissionDenied("only root administrators create Direct networks")
        owner, shared = network_direct.owner(tx, caller, account_name, domain_id, is_shared)
        network_id = network_direct.add(
            tx,
            owner,
            here,
            addresses,
            vlan,
            is_shared=shared,
            is_default=int(bool(is_default)),
            **_described(tx, owner, here, offering, wanted),
        )
    _created(tx, network_id, owner, name, here["id"])
    return network_view.one(tx, caller, network_id)


def update(
    tx: Tx,
    caller: Caller,
    network_id: int,
    *,
    name: str | None,
    display_text: str | None,
    tags: Sequence[str] | None,
    network_domain: str | None,
) -> str:
    """Change names, tags and the network domain (536 while guests are on it). Returns the job's UUID."""
    net = networks.by_id(tx, network_id)
    _may_change(tx, caller, net)
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = checked_name(name, "name")
    if display_text is not None:
        changes["display_text"] = checked_text(display_text, "displaytext")
    if tags is not None:
        changes["tags"] = _tags(tags)
    if network_domain is not None:
        if nics.guests_on(tx, network_id):
            raise ResourceInUse("the network domain cannot change while virtual machines are on the network")
        changes["network_domain"] = _domain_name(network_domain)
    if changes:
        networks.change(tx, network_id, **changes)
    generation = virtual_router.changed(tx, network_id) if "network_domain" in changes else 0
    plan = network_update(network=network_id, generation=generation)
    return _job(tx, caller, net, plan, "updateNetwork", types.NETWORK_UPDATE, f"Updating network {net.name}")


def restart(tx: Tx, caller: Caller, network_id: int, *, cleanup: bool) -> str:
    """Bring the router back to what is declared, with `cleanup` a new router. Returns the job's UUID."""
    net = networks.by_id(tx, network_id)
    _may_change(tx, caller, net)
    if net.state is not NetworkState.IMPLEMENTED:
        raise ParameterError(f"network {net.name} is {net.state}: only an Implemented one can be restarted")
    generation = virtual_router.changed(tx, network_id)
    plan = network_restart(network=network_id, generation=generation, cleanup=cleanup)
    return _job(tx, caller, net, plan, "restartNetwork", types.NETWORK_RESTART, f"Restarting network {net.name}")


def delete(tx: Tx, caller: Caller, network_id: int) -> str:
    """Remove a network without guests (536 otherwise). Returns the job's UUID."""
    net = networks.by_id(tx, network_id)
    _may_change(tx, caller, net)
    guests = nics.guests_on(tx, network_id)
    if guests:
        raise ResourceInUse(f"the network still has {guests} virtual machines that are not expunged")
    plan = network_delete(network=network_id)
    return _job(tx, caller, net, plan, "deleteNetwork", types.NETWORK_DELETE, f"Deleting network {net.name}")


def _chosen(tx: Tx, owner: Owner, here: RowMapping, network_ids: Sequence[int]) -> list[int]:
    if len(network_ids) > MOST_CARDS:
        raise ParameterError(f"a virtual machine is on at most {MOST_CARDS} networks", parameter="networkids")
    if len(set(network_ids)) != len(network_ids):
        raise ParameterError("a network is given twice", parameter="networkids")
    usable = {row["id"]: row for row in _usable(tx, owner, here["id"])}
    chosen = []
    for network_id in network_ids:
        net = networks.by_id(tx, network_id)
        if net.zone_id != here["id"]:
            raise ParameterError(f"network {net.name} is in another zone", parameter="networkids")
        if net.is_system or not net.live:
            raise ParameterError(f"network {net.name} is not for guests", parameter="networkids")
        if network_id not in usable:
            raise PermissionDenied(f"network {net.name} is not for this account to use")
        chosen.append(usable[network_id])
    default = next((row for row in chosen if row["is_default"]), None)
    if default is None:
        raise ParameterError("one of the networks must be a default network", parameter="networkids")
    if here["network_type"] == NetworkType.ADVANCED:
        availability = _virtual_offering(tx)["availability"]
        virtual = [row for row in chosen if row["guest_ip_type"] == GuestIpType.VIRTUAL]
        if availability == Availability.REQUIRED:
            able = [row for row in virtual if row["is_default"]]
            if not able:
                raise ParameterError("the virtual network is required as the default network", parameter="networkids")
            default = able[0]
        if availability == Availability.UNAVAILABLE and virtual:
            raise ParameterError("virtual networks are unavailable", parameter="networkids")
    _refuse_crossing(chosen)
    return [default["id"], *(row["id"] for row in chosen if row["id"] != default["id"])]


def _refuse_crossing(chosen: Sequence[RowMapping]) -> None:
    """A guest cannot tell two of its cards apart by what they reach when their subnets overlap."""
    for one, other in combinations(chosen, 2):
        if one["cidr"] and other["cidr"] and IPv4Network(one["cidr"]).overlaps(IPv4Network(other["cidr"])):
            raise ParameterError(
                f"networks {one['name']} ({one['cidr']}) and {other['name']} ({other['cidr']}) overlap:"
                " a virtual machine can be on one of them only",
                parameter="networkids",
            )


def _usable(tx: Tx, owner: Owner, zone_id: int) -> list[RowMapping]:
    """Guest networks of the zone that the account owns, and those shared with its domain or one above it.

    Without `allow.subdomain.network.access` only ROOT's, which are everybody's, come down to domains below.
    """
    home = rows.kept(tx, domain, owner.domain_id)
    path = "" if home is None else home["path"]
    found = _USABLE.all(tx, the_zone_id=zone_id, the_account_id=owner.account_id, path=path)
    if value(tx, keys.allow_subdomain_network_access):
        return found
    return [row for row in found if not row["is_shared"] or row["domain_id"] in (ROOT_DOMAIN, owner.domain_id)]


_offered = func.substr(bindparam("path", type_=String), 1, func.length(domain.c.path)) == domain.c.path

_USABLE = Prepared(
    select(network)
    .select_from(network.join(domain, domain.c.id == network.c.domain_id))
    .where(
        network.c.live == 1,
        network.c.zone_id == bindparam("the_zone_id"),
        network.c.is_system == 0,
        network.c.traffic_type == str(Traffic.GUEST),
        ((network.c.is_shared == 0) & (network.c.account_id == bindparam("the_account_id")))
        | ((network.c.is_shared == 1) & _offered),
    )
    .order_by(network.c.id)
)


def _is_direct_default(row: RowMapping) -> bool:
    return bool(row["is_default"]) and row["guest_ip_type"] == GuestIpType.DIRECT


def _own_virtual(tx: Tx, owner: Owner, here: RowMapping) -> int:
    """The account's own virtual network of the zone: the one made on demand, or the only one it created itself."""
    key = networks.on_demand_key(here["id"], owner.account_id)
    known = rows.one(tx, network, on_demand_key=key)
    if known is not None:
        rows.keep(tx, network, known)
        return int(known["id"])
    virtual = [
        row["id"]
        for row in _usable(tx, owner, here["id"])
        if row["guest_ip_type"] == GuestIpType.VIRTUAL and row["is_default"]
    ]
    if len(virtual) == 1:
        return int(virtual[0])
    if virtual:
        raise ParameterError("the account has several virtual networks: choose by networkids", parameter="networkids")
    offering = _virtual_offering(tx)
    if offering["availability"] == Availability.UNAVAILABLE:
        raise ParameterError("virtual networks are unavailable", parameter="zoneid")
    wanted = _Wanted("Virtual Network", "A dedicated virtualized network for your account", None, None, None)
    made = _add_virtual(tx, owner, here, offering, wanted, _guest_subnet(tx, here, Subnet()), key=key)
    _created(tx, made, owner, "Virtual Network", here["id"])
    return made


@dataclass(frozen=True)
class _Wanted:
    name: str
    display_text: str
    tags: str | None
    network_domain: str | None
    is_default: bool | None


def _add_virtual(
    tx: Tx,
    owner: Owner,
    here: RowMapping,
    offering: RowMapping,
    wanted: _Wanted,
    guests: tuple[IPv4Network, IPv4Address],
    *,
    key: str | None = None,
    tag: int | None = None,
) -> int:
    """A virtual network, with the zone's isolation unless its VLAN is specified (`tag`)."""
    values = {
        **_described(tx, owner, here, offering, wanted),
        "zone_id": here["id"],
        "account_id": owner.account_id,
        "domain_id": owner.domain_id,
        "state": str(NetworkState.ALLOCATED if tag is None else NetworkState.SETUP),
        "guest_ip_type": str(GuestIpType.VIRTUAL),
        "isolation": here["isolation"] if tag is None else str(Isolation.VLAN),
        "vnet": tag,
        "specified_vlan": int(tag is not None),
        "cidr": str(guests[0]),
        "gateway": str(guests[1]),
        "is_default": int(wanted.is_default is not False),
    }
    return networks.add_on_demand(tx, key, **values) if key is not None else networks.add(tx, **values)


def _described(tx: Tx, owner: Owner, here: RowMapping, offering: RowMapping, wanted: _Wanted) -> dict[str, Any]:
    """The columns that say what guests' networks of both kinds are called and offer."""
    return {
        "name": wanted.name,
        "display_text": wanted.display_text,
        "offering_id": offering["id"],
        "traffic_type": str(Traffic.GUEST),
        "network_domain": _network_domain(tx, owner, here, wanted.network_domain),
        "tags": wanted.tags,
    }


def _specified(tx: Tx, caller: Caller, here: RowMapping, offering: RowMapping, vlan: str | None) -> int | None:
    """The VLAN of a virtual network whose offering lets it be specified; None for one of the zone's range."""
    if not offering["specify_vlan"]:
        if vlan is not None:
            raise ParameterError(
                f"networks of network offering {offering['name']} specify no VLAN: leave vlan out", parameter="vlan"
            )
        return None
    if not caller.is_admin:
        raise PermissionDenied("only root administrators create networks with a VLAN of their own")
    if vlan is None:
        raise ParameterError(f"network offering {offering['name']} needs the VLAN of the network", parameter="vlan")
    tag = vlan_id(vlan)
    vlans.hold(tx, here["id"])
    refuse_taken(tx, here, tag, public=False)
    return tag


def _tags(tags: Sequence[str] | None) -> str | None:
    text = ",".join(tags or ())
    if len(text) > LONGEST:
        raise ParameterError(f"tags have at most {LONGEST} characters together, got {len(text)}", parameter="tags")
    return text or None


def _guest_subnet(tx: Tx, here: RowMapping, addresses: Subnet) -> tuple[IPv4Network, IPv4Address]:
    """CIDR and gateway of a virtual network: those given, or the zone's with its first address as the gateway."""
    if (addresses.gateway is None) != (addresses.netmask is None):
        raise ParameterError("gateway and netmask go together", parameter="gateway")
    if addresses.gateway is None or addresses.netmask is None:
        whole = IPv4Network(here["guest_cidr"] or "10.1.1.0/24")
        return whole, whole.network_address + 1
    whole = subnet(addresses.gateway, addresses.netmask)
    gateway = IPv4Address(addresses.gateway)
    shortest = value(tx, keys.network_guest_cidr_limit)
    if not shortest <= whole.prefixlen <= LONGEST_PREFIX:
        raise ParameterError(
            f"a guest network is at least a /{LONGEST_PREFIX} and at most a /{shortest}", parameter="netmask"
        )
    if not whole.is_private:
        raise ParameterError("a virtual network takes private addresses only", parameter="gateway")
    if gateway in (whole.network_address, whole.broadcast_address):
        raise ParameterError(f"gateway {gateway} is not usable in {whole}", parameter="gateway")
    return whole, gateway


def _network_domain(tx: Tx, owner: Owner, here: RowMapping, given: str | None) -> str:
    """The DNS domain of guests: given, the account's, its domain's, the zone's, or one made of the account's key."""
    if given:
        return _domain_name(given)
    for row in (rows.one(tx, account, id=owner.account_id), rows.one(tx, domain, id=owner.domain_id), here):
        if row is not None and row["network_domain"]:
            return str(row["network_domain"])
    return f"cs{owner.account_id:x}{value(tx, keys.guest_domain_suffix)}"


def _domain_name(text: str) -> str:
    labels = text.split(".")
    fine = all(
        0 < len(label) <= 63
        and label.isascii()
        and label.replace("-", "").isalnum()
        and not label.startswith("-")
        and not label.endswith("-")
        for label in labels
    )
    if not fine or len(text) > 190 or labels[-1].isdecimal():
        raise ParameterError(f"{text!r} is not a domain name", parameter="networkdomain")
    return text.lower()


def _zone(tx: Tx, zone_id: int) -> RowMapping:
    row = rows.kept(tx, zone, zone_id)
    if row is None or row["live"] is None:
        raise ParameterError("there is no such zone", parameter="zoneid")
    return row


def _offering(tx: Tx, offering_id: int) -> RowMapping:
    row = tx.one(select(network_offering).where(network_offering.c.id == offering_id, network_offering.c.live == 1))
    if row is None:
        raise ParameterError("there is no such network offering", parameter="networkofferingid")
    return row


def _virtual_offering(tx: Tx) -> RowMapping:
    row = rows.one(tx, network_offering, name=VIRTUAL_NETWORK_OFFERING)
    if row is None:
        raise LookupError(VIRTUAL_NETWORK_OFFERING)
    return row


def _may_change(tx: Tx, caller: Caller, net: networks.Net) -> None:
    if net.is_system:
        raise PermissionDenied(f"network {net.name} belongs to the system")
    require(tx, caller, net.account_id, net.domain_id, f"network {net.name!r}")


def _job(tx: Tx, caller: Caller, net: networks.Net, plan: Any, command: str, event: str, text: str) -> str:
    owner = Owner(net.account_id, net.domain_id, caller.user_id)
    started = _event(tx, event, text, owner, net.id, net.zone_id, state=SCHEDULED)
    job = submit(
        tx,
        plan,
        owner,
        command=command,
        instance_kind="Network",
        instance_id=net.id,
        resource_key=net.key,
        start_event_id=started,
    )
    return job.uuid


def _created(tx: Tx, network_id: int, owner: Owner, name: str, zone_id: int) -> None:
    _event(tx, types.NETWORK_CREATE, f"Created network {name}", owner, network_id, zone_id)


def _event(
    tx: Tx, type: str, text: str, owner: Owner, network_id: int, zone_id: int, *, state: str = "Completed"
) -> int:
    return record(
        tx,
        type=type,
        description=text,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=owner.user_id,
        state=state,
        resource_kind="Network",
        resource_id=network_id,
        zone_id=zone_id,
    )
