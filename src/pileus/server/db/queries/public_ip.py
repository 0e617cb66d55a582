"""Public addresses, and the addresses of Direct networks: one row each, claimed by compare-and-set of its state."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from sqlalchemy import ColumnElement, RowMapping, bindparam, insert, or_, select, update

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.network import CLAIM_TRIES
from pileus.server.db.tables.network import public_ip, vlan_ip_range
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.address import Range
from pileus.server.domain.errors import InsufficientCapacity
from pileus.server.domain.network import IP, IpState
from pileus.wire.places import Isolation, NetworkRef, Traffic

UNTAGGED = "untagged"


@dataclass(frozen=True)
class Address:
    """An address with what its range says of it. `vlan` is "untagged" or the VLAN id."""

    id: int
    uuid: str
    ip: str
    prefix: int
    netmask: str
    gateway: str
    vlan: str
    zone_id: int
    range_id: int
    state: IpState
    account_id: int | None
    domain_id: int | None
    network_id: int | None
    vm_id: int | None
    is_source_nat: bool
    is_static_nat: bool
    job_id: int | None

    @property
    def ref(self) -> NetworkRef:
        """The public network it lies on, as hosts see it."""
        return public_ref(self.vlan)


def public_ref(vlan: str) -> NetworkRef:
    """The public network of a VLAN ("untagged" or its id)."""
    if vlan == UNTAGGED:
        return NetworkRef(Traffic.PUBLIC, Isolation.UNTAGGED, 0)
    return NetworkRef(Traffic.PUBLIC, Isolation.VLAN, int(vlan))


_columns = (
    public_ip,
    vlan_ip_range.c.gateway,
    vlan_ip_range.c.netmask,
    vlan_ip_range.c.vlan,
)
_joined = public_ip.join(vlan_ip_range, vlan_ip_range.c.id == public_ip.c.range_id)


def by_id(tx: Tx, public_ip_id: int) -> Address | None:
    """The address, or None."""
    row = _BY_ID.one(tx, the_id=public_ip_id)
    return None if row is None else _address(row)


_BY_ID = Prepared(select(*_columns).select_from(_joined).where(public_ip.c.id == bindparam("the_id")))


def of_network(tx: Tx, network_id: int, *, releasing: bool = False) -> list[Address]:
    """Addresses that a virtual network holds and is not about to give up, source NAT first, then in numeric order.

    With `releasing` also those it is about to give up.
    """
    states = [str(IpState.ALLOCATED), *([str(IpState.RELEASING)] if releasing else [])]
    return [_address(row) for row in _OF_NETWORK.all(tx, the_network_id=network_id, states=states)]


_OF_NETWORK = Prepared(
    select(*_columns)
    .select_from(_joined)
    .where(
        public_ip.c.network_id == bindparam("the_network_id"),
        public_ip.c.live == 1,
        vlan_ip_range.c.for_virtual_network == 1,
        public_ip.c.state.in_(bindparam("states", expanding=True)),
    )
    .order_by(public_ip.c.is_source_nat.desc(), public_ip.c.address_number)
)


def source_nat_of(tx: Tx, network_id: int) -> Address | None:
    """The address that guests of the network show to the outside."""
    return next((a for a in of_network(tx, network_id) if a.is_source_nat), None)


def claim_public(
    tx: Tx,
    *,
    zone_id: int,
    account_id: int,
    domain_id: int,
    network_id: int,
    source_nat: bool = False,
    vlan: str | None = None,
    job_id: int | None = None,
) -> Address:
    """Claim the lowest free public address: from ranges dedicated to the account first, never from those of others.

    With `vlan` only addresses on that VLAN; `job_id` is remembered. `InsufficientCapacity` when none is left.
    """
    where = [
        public_ip.c.zone_id == zone_id,
        vlan_ip_range.c.for_virtual_network == 1,
        or_(vlan_ip_range.c.account_id.is_(None), vlan_ip_range.c.account_id == account_id),
    ]
    if vlan is not None:
        where.append(vlan_ip_range.c.vlan == vlan)
    found = _claim(
        tx,
        where,
        account_id=account_id,
        domain_id=domain_id,
        network_id=network_id,
        is_source_nat=int(source_nat),
        job_id=job_id,
    )
    if found is None:
        raise InsufficientCapacity("no public IP address is left in the zone")
    return found


def claim_direct(
    tx: Tx, *, network_id: int, account_id: int, domain_id: int, vm_id: int, ip: str | None = None
) -> Address | None:
    """Claim an address of a Direct network for a guest or router: `ip`, or the lowest free. None when taken."""
    where = [vlan_ip_range.c.network_id == network_id, vlan_ip_range.c.for_virtual_network == 0]
    if ip is not None:
        where.append(public_ip.c.address == ip)
    return _claim(tx, where, account_id=account_id, domain_id=domain_id, network_id=network_id, vm_id=vm_id)


def release(tx: Tx, public_ip_id: int) -> bool:
    """Make the address free again; False when it was free already."""
    return transition(
        tx,
        public_ip,
        public_ip_id,
        IP,
        IpState.FREE,
        account_id=None,
        domain_id=None,
        network_id=None,
        vm_id=None,
        job_id=None,
        is_source_nat=0,
        is_static_nat=0,
        allocated_at=None,
    )


def give_whole(tx: Tx, public_ip_id: int, vm_id: int | None, *, in_force: bool) -> None:
    """Map an address to one guest, or to none. With a guest but not `in_force` the mapping is being ended."""
    tx.execute(update(public_ip).where(public_ip.c.id == public_ip_id).values(vm_id=vm_id, is_static_nat=int(in_force)))


def end_static_nat_of(tx: Tx, vm_id: int) -> None:
    """No address belongs to this guest whole any more."""
    virtual = select(vlan_ip_range.c.id).where(vlan_ip_range.c.for_virtual_network == 1)
    whole = (public_ip.c.vm_id == vm_id, public_ip.c.range_id.in_(virtual))
    tx.execute(update(public_ip).where(*whole).values(vm_id=None, is_static_nat=0))


def release_direct_of(tx: Tx, vm_id: int) -> None:
    """Free every address of Direct networks that a guest or router holds."""
    direct = select(vlan_ip_range.c.id).where(vlan_ip_range.c.for_virtual_network == 0)
    held = select(public_ip.c.id).where(public_ip.c.vm_id == vm_id, public_ip.c.range_id.in_(direct))
    for public_ip_id in list(tx.execute(held).scalars()):
        release(tx, public_ip_id)


def add_range(tx: Tx, *, range_id: int, zone_id: int, addresses: Range) -> None:
    """One free row per address of a new range."""
    tx.execute(
        insert(public_ip),
        [
            {
                "address": str(each),
                "address_number": int(each),
                "zone_id": zone_id,
                "range_id": range_id,
                "state": str(IpState.FREE),
            }
            for each in addresses
        ],
    )


def _claim(tx: Tx, where: list[ColumnElement[bool]], **values: object) -> Address | None:
    free = (public_ip.c.live == 1, public_ip.c.state == str(IpState.FREE))
    candidates = (
        select(public_ip.c.id)
        .select_from(_joined)
        .where(*free, *where)
        .order_by(vlan_ip_range.c.account_id.is_(None), public_ip.c.address_number)
        .limit(1)
    )
    for _ in range(CLAIM_TRIES):
        public_ip_id = tx.scalar(candidates)
        if public_ip_id is None:
            return None
        free_one = {"id": public_ip_id, "live": 1, "state": str(IpState.FREE)}
        if rows.change(tx, public_ip, free_one, state=str(IpState.ALLOCATED), allocated_at=tx.now, **values) == 1:
            return by_id(tx, public_ip_id)
    return None


def _address(row: RowMapping) -> Address:
    return Address(
        id=row["id"],
        uuid=row["uuid"],
        ip=str(IPv4Address(row["address"])),
        prefix=IPv4Network(f"0.0.0.0/{row['netmask']}").prefixlen,
        netmask=row["netmask"],
        gateway=row["gateway"],
        vlan=row["vlan"],
        zone_id=row["zone_id"],
        range_id=row["range_id"],
        state=IpState(row["state"]),
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        network_id=row["network_id"],
        vm_id=row["vm_id"],
        is_source_nat=bool(row["is_source_nat"]),
        is_static_nat=bool(row["is_static_nat"]),
        job_id=row["job_id"],
    )
