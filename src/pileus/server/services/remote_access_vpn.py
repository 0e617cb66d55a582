"""Remote access of users to a network: L2TP over IPsec at a public address. Guide: "VPN"."""

import secrets
import string
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import RowMapping, select

from pileus.server.auth.visibility import owner as owner_of
from pileus.server.config import keys, value
from pileus.server.db.queries.network import Net
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.queries.public_ip import Address
from pileus.server.db.queries.rule import VPN
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.network import public_ip
from pileus.server.db.tables.vpn import remote_access_vpn
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, ResourceInUse, ResourceUnavailable
from pileus.server.domain.network import Protocol
from pileus.server.elements import virtual_router
from pileus.server.services import rule as rules
from pileus.server.services.paging import bounds
from pileus.server.services.rule import ANYWHERE, VPN_PORTS, Asked, Ports

MOST_CLIENTS = 254
_KEY_CHARACTERS = string.ascii_letters + string.digits


def create(
    tx: Tx,
    caller: Caller,
    *,
    public_ip_id: int,
    ip_range: str | None,
    account_name: str | None,
    domain_id: int | None,
    open_firewall: bool,
) -> tuple[str, str]:
    """Let the account's VPN users into the network of an address. Returns job and VPN (UUIDs).

    Errors: a range that is none, or overlaps the guest network (431); a network that has a VPN (536); ports of IPsec
    that other rules use (537); a router that is no virtual machine, whose kernel alone can do it (534).
    """
    owner_of(tx, caller, account_name, domain_id)
    held, net = rules.address_of(tx, caller, public_ip_id, "publicipid")
    rules.refuse_whole(held, "publicipid")
    if not virtual_router.can_vpn(tx, net.id):
        text = "the router of the network is no virtual machine: set router.launcher=vm for the zone and restart it"
        raise ResourceUnavailable(text)
    there = tx.scalar(
        select(remote_access_vpn.c.uuid).where(remote_access_vpn.c.network_id == net.id, remote_access_vpn.c.live == 1)
    )
    if there is not None:
        raise ResourceInUse(f"network {net.name} has remote access VPN {there} already")
    first, last = _range(ip_range or value(tx, keys.remote_access_vpn_client_iprange), net)
    for port in VPN_PORTS:
        rules.refuse_taken(tx, held, Protocol.UDP, Ports(port, port))
    vpn_id = rules.add(
        tx,
        VPN,
        held,
        net,
        local_ip=str(first),
        first_ip=str(first + 1),
        last_ip=str(last),
        preshared_key=_key(value(tx, keys.remote_access_vpn_psk_length)),
    )
    if open_firewall:
        _open(tx, vpn_id, held, net)
    text = f"remote access VPN at {held.ip}"
    return rules.created(tx, caller, VPN, net, vpn_id, command="createRemoteAccessVpn", text=text)


def delete(tx: Tx, caller: Caller, public_ip_id: int) -> str:
    """Close the way in at an address; the job's UUID."""
    held, _ = rules.address_of(tx, caller, public_ip_id, "publicipid")
    of_address = (remote_access_vpn.c.public_ip_id == held.id, remote_access_vpn.c.live == 1)
    vpn_id = tx.scalar(select(remote_access_vpn.c.id).where(*of_address))
    if vpn_id is None:
        raise ParameterError(f"address {held.ip} has no remote access VPN", parameter="publicipid")
    return rules.delete(tx, caller, VPN, vpn_id, command="deleteRemoteAccessVpn")


def list_page(
    tx: Tx, caller: Caller, asked: Asked, *, keyword: str | None, page_number: int | None, page_size: int | None
) -> tuple[list[dict[str, Any]], int]:
    """VPNs within the bounds of the call."""
    offset, limit = bounds(tx, page_number, page_size)
    where = rules.conditions(tx, caller, VPN, asked)
    if keyword:
        of_address = select(public_ip.c.id).where(like(public_ip.c.address, keyword))
        where.append(remote_access_vpn.c.public_ip_id.in_(of_address))
    rows, count = page(tx, remote_access_vpn, where, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, vpn_id: int) -> dict[str, Any]:
    """One VPN, as lists show it."""
    return _views(tx, [rules.by_id(tx, VPN, vpn_id)])[0]


def _range(given: str, net: Net) -> tuple[IPv4Address, IPv4Address]:
    first, dash, last = given.partition("-")
    try:
        found = IPv4Address(first.strip()), IPv4Address(last.strip())
    except AddressValueError:
        found = None
    if not dash or found is None or not 1 <= int(found[1]) - int(found[0]) <= MOST_CLIENTS:
        raise ParameterError(
            f"iprange is a first and a last address such as 10.1.2.1-10.1.2.8: the router's own end, then those of"
            f" at most {MOST_CLIENTS} clients; got {given!r}",
            parameter="iprange",
        )
    within = IPv4Network(net.cidr or "0.0.0.0/32")
    if not (found[1] < within.network_address or found[0] > within.broadcast_address):
        raise ParameterError(f"iprange {given} overlaps the guest network {within}", parameter="iprange")
    if any(not address.is_private or address.is_loopback or address.is_link_local for address in found):
        raise ParameterError(f"iprange {given} holds addresses that are not private ones", parameter="iprange")
    return found


def _key(length: int) -> str:
    return "".join(secrets.choice(_KEY_CHARACTERS) for _ in range(length))


def _open(tx: Tx, vpn_id: int, held: Address, net: Net) -> None:
    for port in VPN_PORTS:
        rules.open_firewall(
            tx, VPN, vpn_id, held, net, protocol=Protocol.UDP, ports=Ports(port, port), sources=(ANYWHERE,)
        )


def _views(tx: Tx, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    addresses = related(tx, public_ip, (row["public_ip_id"] for row in rows))
    accounts = related(tx, account, (row["account_id"] for row in rows))
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "public_ip_id": addresses[row["public_ip_id"]]["uuid"],
            "public_ip": addresses[row["public_ip_id"]]["address"],
            "ip_range": f"{row['first_ip']}-{row['last_ip']}",
            "preshared_key": row["preshared_key"],
            "account": accounts[row["account_id"]]["name"],
            "domain_id": domains[row["domain_id"]]["uuid"],
            "domain_name": domains[row["domain_id"]]["name"],
            "state": row["state"],
        }
        for row in rows
    ]
