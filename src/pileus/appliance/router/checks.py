"""Is a config fit to be applied? Asked before anything is touched, of every value that reaches a program or a file."""

import base64
import binascii
import re
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network

from pileus.appliance.router.public_checks import (
    check_balancers,
    check_firewall,
    check_forwards,
    check_public,
    check_static_nats,
)
from pileus.appliance.router.values import guest_address, printable, refuse, unicast, unique
from pileus.appliance.router.vpn_checks import check_vpn
from pileus.wire.router import GuestData, Lease, PublicAddress, RouterConfig

SERVICES = frozenset(
    {
        "dhcp",
        "dns",
        "gateway",
        "source-nat",
        "user-data",
        "password",
        "port-forwarding",
        "firewall",
        "static-nat",
        "load-balancing",
        "vpn",
    }
)
PASSWORD_WORDS = frozenset({"saved_password", "bad_request"})
MAX_USER_DATA_BYTES = 1024 * 1024
MAX_VALUE_CHARS = 4096

_label = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_mac = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_key = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_id = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check(config: RouterConfig, *, has_public_side: bool, before: RouterConfig | None = None) -> None:
    """Raise ConfigRefused (REJECTED) with the first thing that is wrong, naming its place in the config.

    What is as in `before`, which was checked, is not looked at again where there may be much of it.
    """
    if config.generation < 0:
        refuse("generation is negative")
    guest_network = _guest_network(config)
    if len(config.domain) > 253 or not all(_label.fullmatch(label) for label in config.domain.split(".")):
        refuse("domain is not a DNS name")
    for server in config.dns:
        unicast(server, "dns")
    for service in config.services:
        if service not in SERVICES:
            refuse(f"service {service!r} is unknown")
    known = before if before is not None and _place(before) == _place(config) else None
    if known is None or known.leases != config.leases:
        _check_leases(config, guest_network)
    if known is None or known.guests != config.guests:
        _check_guests(config, guest_network)
    check_public(config, guest_network, has_public_side=has_public_side)
    check_forwards(config, guest_network)
    check_firewall(config, before)
    check_static_nats(config, guest_network)
    check_balancers(config, guest_network)
    check_vpn(config, guest_network)


def _place(config: RouterConfig) -> tuple[str, int]:
    return config.guest_ip, config.guest_prefix


def network_of(config: RouterConfig) -> IPv4Network:
    """The guest network of a checked config."""
    return IPv4Interface(f"{config.guest_ip}/{config.guest_prefix}").network


def _guest_network(config: RouterConfig) -> IPv4Network:
    address = unicast(config.guest_ip, "guest_ip")
    if not 8 <= config.guest_prefix <= 30:
        refuse("guest_prefix is not between 8 and 30")
    network = IPv4Interface(f"{address}/{config.guest_prefix}").network
    if address in (network.network_address, network.broadcast_address):
        refuse("guest_ip is not a host's address")
    if config.gateway and (config.gateway == config.guest_ip or unicast(config.gateway, "gateway") not in network):
        refuse("gateway is not another address of the guest network")
    return network


def _check_leases(config: RouterConfig, network: IPv4Network) -> None:
    for lease in config.leases:
        where = f"lease of {lease.mac!r}"
        if not _mac.fullmatch(lease.mac):
            refuse(f"{where}: not a lower-case unicast MAC address")
        guest_address(lease.ip, network, config, where)
        if not _label.fullmatch(lease.hostname):
            refuse(f"{where}: hostname {lease.hostname!r} is not one DNS label")
    unique((lease.mac for lease in config.leases), "MAC address of a lease")
    unique((lease.ip for lease in config.leases), "address of a lease")
    unique((_folded(lease) for lease in config.leases), "hostname of a lease")


def _folded(lease: Lease) -> str:
    return lease.hostname.lower()


def _check_guests(config: RouterConfig, network: IPv4Network) -> None:
    for guest in config.guests:
        where = f"guest {guest.ip!r}"
        guest_address(guest.ip, network, config, where)
        _check_guest(guest, where)
    unique((guest.ip for guest in config.guests), "address of a guest")


def _check_guest(guest: GuestData, where: str) -> None:
    for key, value in guest.metadata.items():
        if not _key.fullmatch(key) or key in ("meta-data", "user-data"):
            refuse(f"{where}: {key!r} is not a metadata key")
        if len(value) > MAX_VALUE_CHARS or not printable(value):
            refuse(f"{where}: metadata {key} is too long or not printable")
    try:
        user_data = base64.b64decode(guest.user_data, validate=True)
    except (binascii.Error, ValueError):
        refuse(f"{where}: user_data is not base64")
    if len(user_data) > MAX_USER_DATA_BYTES:
        refuse(f"{where}: user_data is longer than {MAX_USER_DATA_BYTES} bytes")
    # The texts must not say what the password is: they reach logs.
    if len(guest.password) > 255 or not printable(guest.password) or guest.password in PASSWORD_WORDS:
        refuse(f"{where}: the password is too long, not printable or a word of the password service")
    if guest.password_id and not _id.fullmatch(guest.password_id):
        refuse(f"{where}: password_id is not an id")
    if guest.password and not guest.password_id:
        refuse(f"{where}: a password without password_id")


def source_of(public: Iterable[PublicAddress]) -> PublicAddress | None:
    """The address that guests' connections leave with, if any."""
    return next((address for address in public if address.source_nat), None)
