"""What a network's router does at its public addresses, read from the database: one query for each kind of rule.

Rules that are being removed, and those of addresses that are being released, are left out. Everything is in a fixed
order, so that equal rules have equal fingerprints.
"""

from collections import defaultdict
from typing import Any

from sqlalchemy import BindParameter, Table, and_, bindparam, select
from sqlalchemy.sql.elements import ColumnElement

from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.public_ip import Address
from pileus.server.db.tables.network import nic, port_forwarding_rule, public_ip
from pileus.server.db.tables.rule import firewall_rule, load_balancer_member, load_balancer_rule
from pileus.server.db.tables.vpn import remote_access_vpn, vpn_user
from pileus.server.db.transaction import Tx
from pileus.server.domain.network import IpState, RuleState
from pileus.wire.router import (
    FirewallRule,
    LoadBalancer,
    PortForward,
    RemoteAccessVpn,
    StaticNat,
    VpnUser,
)

_network: BindParameter[int] = bindparam("the_network_id")


def port_forwards(tx: Tx, network_id: int) -> tuple[PortForward, ...]:
    """Ports of public addresses that lead to a guest."""
    return tuple(
        PortForward(
            id=row["uuid"],
            ip=row["address"],
            protocol=row["protocol"],
            public_start=row["public_start"],
            public_end=row["public_end"],
            guest_ip=row["guest_ip"],
            guest_start=row["private_start"],
            guest_end=row["private_end"],
        )
        for row in _FORWARDS.all(tx, the_network_id=network_id)
    )


def firewall(tx: Tx, network_id: int) -> tuple[FirewallRule, ...]:
    """Who may open connections to the addresses."""
    return tuple(
        FirewallRule(
            id=row["uuid"],
            ip=row["address"],
            protocol=row["protocol"],
            start=row["start_port"] or 0,
            end=row["end_port"] or 0,
            icmp_type=-1 if row["icmp_type"] is None else row["icmp_type"],
            icmp_code=-1 if row["icmp_code"] is None else row["icmp_code"],
            cidrs=tuple(sorted(row["cidrs"].split(","))),
        )
        for row in _FIREWALL.all(tx, the_network_id=network_id)
    )


def static_nats(addresses: list[Address], guest_ips: dict[int, str]) -> tuple[StaticNat, ...]:
    """Addresses that belong to one guest whole; `guest_ips` has the guests' own by key."""
    return tuple(
        StaticNat(address.ip, guest_ips[address.vm_id])
        for address in addresses
        if address.is_static_nat and address.vm_id in guest_ips
    )


def load_balancers(tx: Tx, network_id: int) -> tuple[LoadBalancer, ...]:
    """Balancers with the addresses of their members."""
    members: defaultdict[int, list[str]] = defaultdict(list)
    found = _BALANCERS.all(tx, the_network_id=network_id)
    if found:
        for row in _MEMBERS.all(tx, the_network_id=network_id):
            members[row["rule_id"]].append(row["ip"])
    return tuple(
        LoadBalancer(
            id=row["uuid"],
            ip=row["address"],
            port=row["public_port"],
            guest_port=row["private_port"],
            algorithm=row["algorithm"],
            members=tuple(sorted(members[row["id"]])),
        )
        for row in found
    )


def vpn(tx: Tx, network_id: int) -> RemoteAccessVpn | None:
    """The way in for the account's VPN users, if there is one."""
    row = _VPN.one(tx, the_network_id=network_id)
    if row is None:
        return None
    users = _VPN_USERS.all(tx, the_account_id=row["account_id"])
    return RemoteAccessVpn(
        ip=row["address"],
        preshared_key=row["preshared_key"],
        local_ip=row["local_ip"],
        first_ip=row["first_ip"],
        last_ip=row["last_ip"],
        users=tuple(VpnUser(user["username"], user["password"]) for user in users),
    )


def _wanted(table: Table) -> tuple[ColumnElement[bool], ...]:
    return (table.c.live == 1, table.c.state != str(RuleState.REVOKE))


def _at_addresses(table: Table, *columns: Any) -> Any:
    """Rules of a network that are wanted, each with its address."""
    return select(table.c.uuid, public_ip.c.address, *columns).where(
        table.c.network_id == _network,
        *_wanted(table),
        public_ip.c.id == table.c.public_ip_id,
        public_ip.c.network_id == table.c.network_id,
        public_ip.c.state == str(IpState.ALLOCATED),
    )


_forward = port_forwarding_rule.c
_FORWARDS = Prepared(
    _at_addresses(
        port_forwarding_rule,
        _forward.protocol,
        _forward.public_start,
        _forward.public_end,
        _forward.private_start,
        _forward.private_end,
        nic.c.ip.label("guest_ip"),
    )
    .where(and_(nic.c.vm_id == _forward.vm_id, nic.c.network_id == _forward.network_id, nic.c.live == 1))
    .order_by(_forward.uuid)
)

_opening = firewall_rule.c
_FIREWALL = Prepared(
    _at_addresses(
        firewall_rule,
        _opening.protocol,
        _opening.start_port,
        _opening.end_port,
        _opening.icmp_type,
        _opening.icmp_code,
        _opening.cidrs,
    ).order_by(_opening.uuid)
)

_balancer = load_balancer_rule.c
_BALANCERS = Prepared(
    _at_addresses(
        load_balancer_rule, _balancer.id, _balancer.public_port, _balancer.private_port, _balancer.algorithm
    ).order_by(_balancer.uuid)
)

_member = load_balancer_member.c
_MEMBERS = Prepared(
    select(_member.rule_id, nic.c.ip).where(
        _balancer.network_id == _network,
        *_wanted(load_balancer_rule),
        _member.rule_id == _balancer.id,
        *_wanted(load_balancer_member),
        nic.c.vm_id == _member.vm_id,
        nic.c.network_id == _balancer.network_id,
        nic.c.live == 1,
    )
)

_access = remote_access_vpn.c
_VPN = Prepared(
    _at_addresses(
        remote_access_vpn,
        _access.account_id,
        _access.local_ip,
        _access.first_ip,
        _access.last_ip,
        _access.preshared_key,
    )
)

_VPN_USERS = Prepared(
    select(vpn_user.c.username, vpn_user.c.password)
    .where(vpn_user.c.account_id == bindparam("the_account_id"), *_wanted(vpn_user))
    .order_by(vpn_user.c.username)
)
