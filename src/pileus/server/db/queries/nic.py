"""Network cards of guests and routers: their addresses, and how hosts see them.

Whoever gives out an address of a network holds the network's row first, so two cards never race for one address.
"""

from ipaddress import IPv4Network

from sqlalchemy import and_, bindparam, func, select, update

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries import rule as rules
from pileus.server.db.queries.network import Net
from pileus.server.db.tables.network import network, nic, public_ip, vlan_ip_range
from pileus.server.db.tables.offering import network_offering, service_offering
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.domain.address import address
from pileus.server.domain.errors import InsufficientCapacity, ParameterError, ResourceUnavailable
from pileus.server.domain.mac import mac_of
from pileus.server.domain.vm import VmKind
from pileus.wire.places import Isolation, NetworkRef, NicSpec, Traffic


def allocate(tx: Tx, *, network_id: int, vm_id: int, device_id: int, is_default: bool, ip: str | None = None) -> int:
    """Give a guest a card on a network: `ip`, or the lowest free address. Returns the card's key.

    The network's config gets a new generation, which the card remembers. Errors: an address outside the network or
    taken (431), no address left (533), a network that is being removed (534).
    """
    if not networks.use(tx, network_id):
        raise ResourceUnavailable("the network is being removed")
    net = networks.by_id(tx, network_id)
    if net.is_virtual:
        chosen, netmask, gateway = _virtual_address(tx, net, ip), str(net.subnet.netmask), net.gateway
    else:
        claimed = _direct_address(tx, net, vm_id, ip)
        chosen, netmask, gateway = claimed.ip, claimed.netmask, claimed.gateway
    generation = networks.bump(tx, network_id)
    return add(
        tx,
        vm_id=vm_id,
        network_id=network_id,
        ip=chosen,
        netmask=netmask,
        gateway=gateway,
        device_id=device_id,
        traffic_type=str(Traffic.GUEST),
        is_default=int(is_default),
        generation=generation,
    )


def add(tx: Tx, **values: object) -> int:
    """Insert a card; its MAC follows from its key."""
    nic_id = rows.add(tx, nic, created_at=tx.now, **values)
    rows.change(tx, nic, {"id": nic_id}, mac=mac_of(nic_id))
    return nic_id


def release_all(tx: Tx, vm_id: int) -> tuple[int, ...]:
    """Take all cards from a guest that is gone, with the rules that lead to it.

    Returns the networks, each with a new generation declared: tell their element (`virtual_router.changed`).
    """
    mine = (nic.c.vm_id == vm_id, nic.c.live == 1)
    found = sorted(set(tx.execute(select(nic.c.network_id).where(*mine)).scalars()))
    for network_id in found:
        networks.bump(tx, network_id)
    tx.execute(update(nic).where(*mine).values(live=None, removed_at=tx.now))
    rules.forget_all(tx, "vm_id", vm_id)
    public_ips.end_static_nat_of(tx, vm_id)
    public_ips.release_direct_of(tx, vm_id)
    return tuple(found)


def specs(
    tx: Tx, vm_id: int, *, rate_mbps: int = 0, other_rate_mbps: int = 0, public_rate_mbps: int = 0
) -> tuple[NicSpec, ...]:
    """The cards as hosts see them, in the order of the devices.

    A guest's default card has the rate of its service offering, else of the network's offering, else `rate_mbps`; its
    other cards that of their network's offering, else `other_rate_mbps`; a router's public card that of its service
    offering, else `public_rate_mbps`. 0 means no limit. `ResourceUnavailable` while a network is not implemented.
    """
    found = []
    for row in _SPECS.all(tx, the_vm_id=vm_id):
        if row["traffic_type"] == Traffic.PUBLIC:
            ref = public_ips.public_ref(row["public_vlan"] or public_ips.UNTAGGED)
        else:
            if row["vnet"] is None and row["isolation"] != Isolation.UNTAGGED:
                raise ResourceUnavailable(f"network {row['network_name']} is not implemented")
            traffic = Traffic.GUEST if row["guest_ip_type"] == "Virtual" else Traffic.PUBLIC
            ref = NetworkRef(traffic, Isolation(row["isolation"]), row["vnet"] or 0)
        limits: tuple[int | None, ...]
        if row["traffic_type"] == Traffic.PUBLIC:
            limits = (row["vm_rate"], public_rate_mbps)
        elif row["kind"] != VmKind.USER:
            limits = ()
        elif row["is_default"]:
            limits = (row["vm_rate"], row["network_rate"], rate_mbps)
        else:
            limits = (row["network_rate"], other_rate_mbps)
        found.append(
            NicSpec(
                mac=row["mac"],
                ip=row["ip"],
                prefix=IPv4Network(f"0.0.0.0/{row['netmask']}").prefixlen,
                network=ref,
                device_id=row["device_id"],
                default=bool(row["is_default"]),
                rate_mbps=next((limit for limit in limits if limit is not None), 0),
                gateway=row["gateway"] or "",
            )
        )
    return tuple(found)


_ON_PUBLIC = and_(
    nic.c.traffic_type == str(Traffic.PUBLIC),
    public_ip.c.address == nic.c.ip,
    public_ip.c.zone_id == network.c.zone_id,
    public_ip.c.live == 1,
)

_SPECS = Prepared(
    select(
        nic,
        vm.c.kind,
        network.c.name.label("network_name"),
        network.c.isolation,
        network.c.vnet,
        network.c.guest_ip_type,
        vlan_ip_range.c.vlan.label("public_vlan"),
        service_offering.c.rate_mbps.label("vm_rate"),
        network_offering.c.rate_mbps.label("network_rate"),
    )
    .select_from(
        nic.join(network, network.c.id == nic.c.network_id)
        .join(vm, vm.c.id == nic.c.vm_id)
        .join(service_offering, service_offering.c.id == vm.c.service_offering_id)
        .join(network_offering, network_offering.c.id == network.c.offering_id)
        .outerjoin(public_ip, _ON_PUBLIC)
        .outerjoin(vlan_ip_range, vlan_ip_range.c.id == public_ip.c.range_id)
    )
    .where(nic.c.vm_id == bindparam("the_vm_id"), nic.c.live == 1)
    .order_by(nic.c.device_id)
)


def networks_of(tx: Tx, vm_id: int) -> list[int]:
    """Keys of the networks that a guest has cards on, default first, then in the order of the devices."""
    cards = select(nic.c.network_id).where(nic.c.vm_id == vm_id, nic.c.live == 1)
    return list(tx.execute(cards.order_by(nic.c.is_default.desc(), nic.c.device_id)).scalars())


def generation_of(tx: Tx, network_id: int, vm_id: int) -> int:
    """The generation of the network's config that a guest needs; 0 when it has no card there."""
    return int(_GENERATION.scalar(tx, the_vm_id=vm_id, the_network_id=network_id) or 0)


_GENERATION = Prepared(
    select(func.max(nic.c.generation)).where(
        nic.c.vm_id == bindparam("the_vm_id"), nic.c.network_id == bindparam("the_network_id"), nic.c.live == 1
    )
)


def need_generation(tx: Tx, network_id: int, vm_id: int, generation: int) -> None:
    """Let a guest need a newer generation before it starts (its password or user data changed)."""
    mine = (nic.c.vm_id == vm_id, nic.c.network_id == network_id, nic.c.live == 1)
    tx.execute(update(nic).where(*mine).values(generation=generation))


def guests_on(tx: Tx, network_id: int, *, states: tuple[str, ...] = ()) -> int:
    """How many cards of users' guests a network has, optionally only of guests in some states."""
    query = (
        select(nic.c.id)
        .select_from(nic.join(vm, vm.c.id == nic.c.vm_id))
        .where(nic.c.live == 1, nic.c.network_id == network_id, vm.c.kind == str(VmKind.USER))
    )
    if states:
        query = query.where(vm.c.state.in_(states))
    return len(tx.all(query))


def _virtual_address(tx: Tx, net: Net, wanted: str | None) -> str:
    taken = set(_TAKEN.scalars(tx, the_network_id=net.id))
    taken.add(net.gateway)
    subnet = net.subnet
    if wanted is not None:
        asked = address(wanted, "ipaddress")
        if asked not in subnet or asked in (subnet.network_address, subnet.broadcast_address):
            raise ParameterError(f"address {asked} is not in the network {subnet}", parameter="ipaddress")
        if str(asked) in taken:
            raise ParameterError(f"address {asked} is in use on the network", parameter="ipaddress")
        return str(asked)
    for number in range(int(subnet.network_address) + 1, int(subnet.broadcast_address)):
        # As text at once: an address object costs more than the rest of the search.
        text = f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        if text not in taken:
            return text
    raise InsufficientCapacity(f"no address is left in network {net.name} ({subnet})")


_TAKEN = Prepared(select(nic.c.ip).where(nic.c.live == 1, nic.c.network_id == bindparam("the_network_id")))


def _direct_address(tx: Tx, net: Net, vm_id: int, wanted: str | None) -> public_ips.Address:
    owner = tx.one(select(vm.c.account_id, vm.c.domain_id).where(vm.c.id == vm_id))
    if owner is None:
        raise LookupError(f"vm {vm_id}")
    asked = None if wanted is None else str(address(wanted, "ipaddress"))
    claimed = public_ips.claim_direct(
        tx, network_id=net.id, account_id=owner["account_id"], domain_id=owner["domain_id"], vm_id=vm_id, ip=asked
    )
    if claimed is not None:
        return claimed
    if asked is not None:
        raise ParameterError(f"address {asked} is in use or not in the ranges of the network", parameter="ipaddress")
    raise InsufficientCapacity(f"no address is left in network {net.name}")
