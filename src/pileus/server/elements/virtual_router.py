"""The virtual router as a network element: the whole config of a network, declared from the database.

A change bumps the desired generation in its own transaction (`changed`); the reconciler `network-config` brings it
to the router. Nothing ever patches a running router.
"""

from ipaddress import IPv4Network
from typing import Any

from sqlalchemy import RowMapping, Select, bindparam, select

from pileus.server.config import keys, value
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries import router as routers
from pileus.server.db.queries.public_ip import Address
from pileus.server.db.tables.network import guest_data, network, network_config, nic
from pileus.server.db.tables.offering import network_offering, service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.domain.network import GuestIpType
from pileus.server.domain.vm import VmKind
from pileus.server.elements import router_home, router_rules
from pileus.server.jobs.reconciler import trigger
from pileus.wire.router import GuestData, Lease, PublicAddress, RouterConfig

RECONCILER = "network-config"


def changed(tx: Tx, network_id: int, *, vm_id: int | None = None) -> int:
    """Declare that the config of a network has changed; returns the new generation.

    With `vm_id` that guest's next start waits until the router has it (its password, its user data).
    """
    generation = networks.bump(tx, network_id)
    if vm_id is not None:
        nics.need_generation(tx, network_id, vm_id, generation)
    trigger(tx, RECONCILER)
    return generation


def vm_changed(tx: Tx, vm_id: int) -> None:
    """Declare that what is served to a guest has changed, on every network it has a card on."""
    for network_id in sorted(nics.networks_of(tx, vm_id)):
        changed(tx, network_id, vm_id=vm_id)


def zone_changed(tx: Tx, zone_id: int) -> None:
    """Declare that the name or the DNS servers of a zone have changed, which every router in it serves."""
    _many_changed(tx, select(network.c.id).where(network.c.live == 1, network.c.zone_id == zone_id))


def offering_changed(tx: Tx, offering_id: int) -> None:
    """Declare that a service offering has another name, which its guests are told."""
    cards = nic.join(vm, vm.c.id == nic.c.vm_id)
    of_offering = (nic.c.live == 1, vm.c.live == 1, vm.c.service_offering_id == offering_id)
    _many_changed(tx, select(nic.c.network_id).select_from(cards).where(*of_offering))


def _many_changed(tx: Tx, network_ids: Select[Any]) -> None:
    if networks.bump_all(tx, network_ids):
        trigger(tx, RECONCILER)


def config(tx: Tx, network_id: int, *, generation: int) -> RouterConfig:
    """The whole desired config of the network's router, in a fixed number of queries.

    Everything is sorted: equal contents have equal fingerprints.
    """
    net = _network(tx, network_id)
    is_virtual = net["guest_ip_type"] == GuestIpType.VIRTUAL
    cards = _CARDS.all(tx, the_network_id=network_id)
    addresses = public_ips.of_network(tx, network_id) if is_virtual else []
    outside = next((a.ip for a in addresses if a.is_source_nat), "")
    own = _router_card(cards, net["router_id"])
    guests = [row for row in cards if row["kind"] == VmKind.USER]
    routed = is_virtual or not value(tx, keys.direct_network_no_default_route)
    whole = {address.vm_id: address.ip for address in addresses if address.is_static_nat}
    # A router that came to live in a namespace again cannot, and must not fail for it.
    in_machine = is_virtual and own is not None and own["template_id"] is not None
    way_in = router_rules.vpn(tx, network_id) if in_machine else None
    return RouterConfig(
        network=net["uuid"],
        generation=generation,
        guest_ip=net["gateway"] if is_virtual else (own["ip"] if own is not None else ""),
        guest_prefix=IPv4Network(net["cidr"]).prefixlen,
        domain=net["network_domain"] or value(tx, keys.guest_domain_suffix),
        gateway="" if is_virtual else net["gateway"] or "",
        dns=_dns(net),
        services=tuple(sorted([*(s for s in net["services"].split(",") if s), *(["vpn"] if way_in else [])])),
        leases=tuple(
            Lease(row["mac"], row["ip"], row["vm_name"], default_gateway=routed and bool(row["is_default"]))
            for row in guests
        ),
        guests=tuple(_guest(row, net["zone_name"], whole.get(row["vm_id"], outside)) for row in guests),
        public=tuple(_public(address) for address in addresses),
        port_forwards=router_rules.port_forwards(tx, network_id) if is_virtual else (),
        firewall=router_rules.firewall(tx, network_id) if is_virtual else (),
        static_nats=router_rules.static_nats(addresses, {row["vm_id"]: row["ip"] for row in guests}),
        load_balancers=router_rules.load_balancers(tx, network_id) if is_virtual else (),
        vpn=way_in,
        max_connections=net["max_connections"] or 0,
    )


def can_vpn(tx: Tx, network_id: int) -> bool:
    """Whether the network's router can let VPN clients in: it needs a kernel of its own, as virtual machines have.

    Without a router that runs, what the next one will be decides.
    """
    router = routers.of_network(tx, network_id)
    if router is not None and router.runs:
        return router.template_id is not None
    return router_home.is_vm(tx, networks.by_id(tx, network_id).zone_id)


def _network(tx: Tx, network_id: int) -> RowMapping:
    row = _NETWORK.one(tx, the_network_id=network_id)
    if row is None:
        raise LookupError(f"network {network_id}")
    return row


_NETWORK = Prepared(
    select(
        network,
        zone.c.name.label("zone_name"),
        zone.c.dns1.label("zone_dns1"),
        zone.c.dns2.label("zone_dns2"),
        network_offering.c.services,
        network_offering.c.max_connections,
        network_config.c.router_id,
    )
    .select_from(
        network.join(zone, zone.c.id == network.c.zone_id)
        .join(network_offering, network_offering.c.id == network.c.offering_id)
        .join(network_config, network_config.c.network_id == network.c.id)
    )
    .where(network.c.id == bindparam("the_network_id"))
)


_CARDS = Prepared(
    select(
        nic.c.mac,
        nic.c.ip,
        nic.c.is_default,
        nic.c.vm_id,
        vm.c.kind,
        vm.c.uuid.label("vm_uuid"),
        vm.c.name.label("vm_name"),
        vm.c.instance_name,
        vm.c.template_id,
        service_offering.c.name.label("offering_name"),
        guest_data.c.user_data,
        guest_data.c.password,
        guest_data.c.password_id,
        guest_data.c.public_key,
    )
    .select_from(
        nic.join(vm, vm.c.id == nic.c.vm_id)
        .join(service_offering, service_offering.c.id == vm.c.service_offering_id)
        .outerjoin(guest_data, guest_data.c.vm_id == vm.c.id)
    )
    .where(nic.c.network_id == bindparam("the_network_id"), nic.c.live == 1)
    .order_by(nic.c.ip, nic.c.id)
)


def _router_card(cards: list[RowMapping], router_id: int | None) -> RowMapping | None:
    return next((row for row in cards if row["vm_id"] == router_id), None)


def _dns(net: RowMapping) -> tuple[str, ...]:
    chosen = (net["dns1"], net["dns2"]) if net["dns1"] else (net["zone_dns1"], net["zone_dns2"])
    return tuple(each for each in chosen if each)


def _guest(row: RowMapping, zone_name: str, outside: str) -> GuestData:
    public = outside or row["ip"]
    keys_in = {"public-keys": row["public_key"]} if row["public_key"] else {}
    return GuestData(
        ip=row["ip"],
        metadata={
            **keys_in,
            "availability-zone": zone_name,
            "instance-id": row["instance_name"] or "",
            "local-hostname": row["vm_name"],
            "local-ipv4": row["ip"],
            "public-hostname": public,
            "public-ipv4": public,
            "service-offering": row["offering_name"],
            "vm-id": row["vm_uuid"],
        },
        user_data=row["user_data"] or "",
        password=row["password"] or "",
        password_id=row["password_id"] or "",
    )


def _public(address: Address) -> PublicAddress:
    return PublicAddress(address.ip, address.prefix, address.gateway, source_nat=address.is_source_nat)
