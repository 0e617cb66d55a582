"""Networks, the generations of their declared config, and the VLANs of their zone. Guide: "Guest Virtual Networks"."""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from sqlalchemy import RowMapping, Select, bindparam, select, update
from sqlalchemy.exc import IntegrityError

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.seed import PUBLIC_NETWORK_OFFERING
from pileus.server.db.tables.network import network, network_config
from pileus.server.db.tables.offering import network_offering
from pileus.server.db.tables.place import zone_vnet
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT
from pileus.server.domain.errors import InsufficientCapacity, ResourceUnavailable
from pileus.server.domain.network import GuestIpType, NetworkState
from pileus.wire.places import Isolation, NetworkRef, Traffic

CLAIM_TRIES = 1000
"""How often a claim that others keep winning is tried again before it counts as no room."""


@dataclass(frozen=True)
class Net:
    """A guest network with the generations of its config. `router_id` is the `vm` row of its router, if it has one."""

    id: int
    uuid: str
    name: str
    zone_id: int
    account_id: int
    domain_id: int
    state: NetworkState
    guest_ip_type: GuestIpType | None
    isolation: Isolation
    vnet: int | None
    cidr: str | None
    gateway: str | None
    specified_vlan: bool
    is_shared: bool
    is_system: bool
    is_default: bool
    live: bool
    idle_at: int | None
    set_up_by: int | None
    router_id: int | None
    desired: int
    applied: int
    pushing: int
    refused: int
    failure: str | None

    @property
    def key(self) -> str:
        """Resource key and topic of everything that happens to the network or its router."""
        return f"network:{self.id}"

    @property
    def is_virtual(self) -> bool:
        """Whether it is an account's own network behind source NAT."""
        return self.guest_ip_type is GuestIpType.VIRTUAL

    @property
    def subnet(self) -> IPv4Network:
        """The guest subnet."""
        return IPv4Network(self.cidr or "0.0.0.0/0")

    @property
    def ref(self) -> NetworkRef:
        """The network as hosts see it; `ResourceUnavailable` while it has no VLAN."""
        if self.isolation is not Isolation.UNTAGGED and self.vnet is None:
            raise ResourceUnavailable(f"network {self.name} is not implemented")
        traffic = Traffic.GUEST if self.is_virtual else Traffic.PUBLIC
        return NetworkRef(traffic, self.isolation, self.vnet or 0)


_columns = (
    network,
    network_config.c.router_id,
    network_config.c.desired,
    network_config.c.applied,
    network_config.c.pushing,
    network_config.c.refused,
    network_config.c.failure,
)


def find(tx: Tx, network_id: int) -> Net | None:
    """The network, removed or not; None when there never was one."""
    row = _FIND.one(tx, the_id=network_id)
    return None if row is None else _net(row)


_FIND = Prepared(
    select(*_columns)
    .select_from(network.join(network_config, network_config.c.network_id == network.c.id))
    .where(network.c.id == bindparam("the_id"))
)


def by_id(tx: Tx, network_id: int) -> Net:
    """The network, removed or not."""
    found = find(tx, network_id)
    if found is None:
        raise LookupError(f"network {network_id}")
    return found


def of_account(tx: Tx, account_id: int) -> list[int]:
    """Keys of the live networks of an account."""
    found = select(network.c.id).where(network.c.live == 1, network.c.account_id == account_id)
    return [int(key) for key in tx.execute(found.order_by(network.c.id)).scalars()]


def shared_in(tx: Tx, domain_ids: Collection[int]) -> list[int]:
    """Keys of the live networks that were given to one of the domains."""
    found = select(network.c.id).where(network.c.live == 1, network.c.is_shared == 1)
    found = found.where(network.c.domain_id.in_(domain_ids))
    return [int(key) for key in tx.execute(found.order_by(network.c.id)).scalars()]


def add(tx: Tx, **values: Any) -> int:
    """Insert a network with its config at generation 0."""
    network_id = rows.add(tx, network, created_at=tx.now, **values)
    rows.put(tx, network_config, network_id=network_id)
    return network_id


def change(tx: Tx, network_id: int, **values: Any) -> None:
    """Set columns of a network."""
    rows.change(tx, network, {"id": network_id}, **values)


def change_config(tx: Tx, network_id: int, **values: Any) -> None:
    """Set columns of a network's config."""
    rows.change(tx, network_config, {"network_id": network_id}, **values)


def on_demand_key(zone_id: int, account_id: int) -> str:
    """What makes an account's own virtual network of a zone unique."""
    return f"{zone_id}:{account_id}"


def add_on_demand(tx: Tx, key: str, **values: Any) -> int:
    """Insert the network with this key, or find the one that somebody else has just inserted."""
    known = rows.one(tx, network, on_demand_key=key)
    if known is not None:
        return int(known["id"])
    try:
        with tx.connection.begin_nested():
            return add(tx, on_demand_key=key, **values)
    except IntegrityError:
        return int(tx.scalar(select(network.c.id).where(network.c.on_demand_key == key)))


def public_key(zone_id: int) -> str:
    """The `on_demand_key` of a zone's public network."""
    return f"public:{zone_id}"


def public_of(tx: Tx, zone_id: int) -> int:
    """The system network that stands for a zone's public traffic; made on first use."""
    offering = rows.one(tx, network_offering, name=PUBLIC_NETWORK_OFFERING)
    assert offering is not None  # noqa: S101 (seeded)
    return add_on_demand(
        tx,
        public_key(zone_id),
        name="Public",
        display_text="Public traffic of the zone",
        zone_id=zone_id,
        offering_id=offering["id"],
        account_id=SYSTEM_ACCOUNT,
        domain_id=ROOT_DOMAIN,
        state=str(NetworkState.SETUP),
        traffic_type=str(Traffic.PUBLIC),
        isolation=str(Isolation.UNTAGGED),
        is_system=1,
    )


def bump(tx: Tx, network_id: int) -> int:
    """Declare a new generation of the config; returns it. The row stays locked to the end of the transaction."""
    _BUMP.changed(tx, the_id=network_id)
    return int(_DESIRED.scalar(tx, the_id=network_id))


_BUMP = Prepared(
    update(network_config)
    .where(network_config.c.network_id == bindparam("the_id"))
    .values(desired=network_config.c.desired + 1)
)

_DESIRED = Prepared(select(network_config.c.desired).where(network_config.c.network_id == bindparam("the_id")))


def bump_all(tx: Tx, network_ids: Select[Any]) -> bool:
    """Declare a new generation of the config of many networks at once. False when there are none."""
    some = update(network_config).where(network_config.c.network_id.in_(network_ids))
    return tx.execute(some.values(desired=network_config.c.desired + 1)).rowcount > 0


def use(tx: Tx, network_id: int, *, implemented: bool = False) -> bool:
    """Say that the network is wanted: it is no longer idle. False when it is gone (or, if asked, not implemented).

    The row stays locked to the end of the transaction: neither garbage collection nor deletion can pass in between.
    """
    return (_USE_IMPLEMENTED if implemented else _USE).changed(tx, the_id=network_id) == 1


_WANTED = update(network).where(network.c.id == bindparam("the_id"), network.c.live == 1).values(idle_at=None)

_USE = Prepared(_WANTED.where(network.c.state != str(NetworkState.DESTROY)))

_USE_IMPLEMENTED = Prepared(_WANTED.where(network.c.state == str(NetworkState.IMPLEMENTED)))


def rate_mbps(tx: Tx, network_id: int) -> int | None:
    """The rate that the network's offering sets, 0 for none; None when it sets none."""
    rate = _RATE.scalar(tx, the_id=network_id)
    return None if rate is None else int(rate)


_RATE = Prepared(
    select(network_offering.c.rate_mbps)
    .select_from(network.join(network_offering, network_offering.c.id == network.c.offering_id))
    .where(network.c.id == bindparam("the_id"))
)


def claim_vnet(tx: Tx, net: Net) -> int:
    """Give the network the lowest free VLAN of its zone, unless it holds one; `InsufficientCapacity` without any."""
    mine = rows.one(tx, zone_vnet, network_id=net.id)
    if mine is not None:
        return int(mine["vnet"])
    for _ in range(CLAIM_TRIES):
        lowest = _LOWEST_VNET.scalar(tx, the_zone_id=net.zone_id)
        if lowest is None:
            break
        if _CLAIM_VNET.changed(tx, the_zone_id=net.zone_id, the_vnet=lowest, new_network_id=net.id) == 1:
            return int(lowest)
    raise InsufficientCapacity("no VLAN is left in the zone for another guest network")


_FREE_VNET = zone_vnet.c.zone_id == bindparam("the_zone_id"), zone_vnet.c.network_id.is_(None)

_LOWEST_VNET = Prepared(select(zone_vnet.c.vnet).where(*_FREE_VNET).order_by(zone_vnet.c.vnet).limit(1))

_CLAIM_VNET = Prepared(
    update(zone_vnet)
    .where(*_FREE_VNET, zone_vnet.c.vnet == bindparam("the_vnet"))
    .values(network_id=bindparam("new_network_id"))
)


def release_vnet(tx: Tx, network_id: int) -> None:
    """Give the VLAN back, if the network holds one of the zone's range."""
    tx.execute(update(zone_vnet).where(zone_vnet.c.network_id == network_id).values(network_id=None))


def _net(row: RowMapping) -> Net:
    return Net(
        id=row["id"],
        uuid=row["uuid"],
        name=row["name"],
        zone_id=row["zone_id"],
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        state=NetworkState(row["state"]),
        guest_ip_type=GuestIpType(row["guest_ip_type"]) if row["guest_ip_type"] else None,
        isolation=Isolation(row["isolation"]),
        vnet=row["vnet"],
        cidr=row["cidr"],
        gateway=row["gateway"],
        specified_vlan=bool(row["specified_vlan"]),
        is_shared=bool(row["is_shared"]),
        is_system=bool(row["is_system"]),
        is_default=bool(row["is_default"]),
        live=bool(row["live"]),
        idle_at=row["idle_at"],
        set_up_by=row["set_up_by"],
        router_id=row["router_id"],
        desired=row["desired"],
        applied=row["applied"],
        pushing=row["pushing"],
        refused=row["refused"],
        failure=row["failure"],
    )
