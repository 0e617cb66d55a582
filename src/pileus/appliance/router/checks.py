"""Is a config fit to be applied? Asked before anything is touched, of every value that reaches a program or a file."""

import base64
import binascii
import re
from collections.abc import Hashable, Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network

from pileus.appliance.router.errors import ConfigRefused
from pileus.wire.operations import Reason
from pileus.wire.router import GuestData, Lease, PortForward, PublicAddress, RouterConfig

SERVICES = frozenset({"dhcp", "dns", "gateway", "source-nat", "user-data", "password", "port-forwarding"})
PASSWORD_WORDS = frozenset({"saved_password", "bad_request"})
MAX_USER_DATA_BYTES = 1024 * 1024
MAX_VALUE_CHARS = 4096

_label = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_mac = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_key = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_id = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check(config: RouterConfig, *, has_public_side: bool) -> None:
    """Raise ConfigRefused (REJECTED) with the first thing that is wrong, naming its place in the config."""
    if config.generation < 0:
        raise _bad("generation is negative")
    guest_network = _guest_network(config)
    if len(config.domain) > 253 or not all(_label.fullmatch(label) for label in config.domain.split(".")):
        raise _bad("domain is not a DNS name")
    for server in config.dns:
        _address(server, "dns")
    for service in config.services:
        if service not in SERVICES:
            raise _bad(f"service {service!r} is unknown")
    _check_leases(config, guest_network)
    _check_guests(config, guest_network)
    _check_public(config, guest_network, has_public_side=has_public_side)
    _check_forwards(config, guest_network)


def network_of(config: RouterConfig) -> IPv4Network:
    """The guest network of a checked config."""
    return IPv4Interface(f"{config.guest_ip}/{config.guest_prefix}").network


def _guest_network(config: RouterConfig) -> IPv4Network:
    address = _address(config.guest_ip, "guest_ip")
    if not 8 <= config.guest_prefix <= 30:
        raise _bad("guest_prefix is not between 8 and 30")
    network = IPv4Interface(f"{address}/{config.guest_prefix}").network
    if address in (network.network_address, network.broadcast_address):
        raise _bad("guest_ip is not a host's address")
    if config.gateway and (config.gateway == config.guest_ip or _address(config.gateway, "gateway") not in network):
        raise _bad("gateway is not another address of the guest network")
    return network


def _check_leases(config: RouterConfig, network: IPv4Network) -> None:
    for lease in config.leases:
        where = f"lease of {lease.mac!r}"
        if not _mac.fullmatch(lease.mac):
            raise _bad(f"{where}: not a lower-case unicast MAC address")
        _guest_address(lease.ip, network, config, where)
        if not _label.fullmatch(lease.hostname):
            raise _bad(f"{where}: hostname {lease.hostname!r} is not one DNS label")
    _unique((lease.mac for lease in config.leases), "MAC address of a lease")
    _unique((lease.ip for lease in config.leases), "address of a lease")
    _unique((_folded(lease) for lease in config.leases), "hostname of a lease")


def _folded(lease: Lease) -> str:
    return lease.hostname.lower()


def _check_guests(config: RouterConfig, network: IPv4Network) -> None:
    for guest in config.guests:
        where = f"guest {guest.ip!r}"
        _guest_address(guest.ip, network, config, where)
        _check_guest(guest, where)
    _unique((guest.ip for guest in config.guests), "address of a guest")


def _check_guest(guest: GuestData, where: str) -> None:
    for key, value in guest.metadata.items():
        if not _key.fullmatch(key) or key in ("meta-data", "user-data"):
            raise _bad(f"{where}: {key!r} is not a metadata key")
        if len(value) > MAX_VALUE_CHARS or not _printable(value):
            raise _bad(f"{where}: metadata {key} is too long or not printable")
    try:
        user_data = base64.b64decode(guest.user_data, validate=True)
    except (binascii.Error, ValueError):
        raise _bad(f"{where}: user_data is not base64") from None
    if len(user_data) > MAX_USER_DATA_BYTES:
        raise _bad(f"{where}: user_data is longer than {MAX_USER_DATA_BYTES} bytes")
    # The texts must not say what the password is: they reach logs.
    if len(guest.password) > 255 or not _printable(guest.password) or guest.password in PASSWORD_WORDS:
        raise _bad(f"{where}: the password is too long, not printable or a word of the password service")
    if guest.password_id and not _id.fullmatch(guest.password_id):
        raise _bad(f"{where}: password_id is not an id")
    if guest.password and not guest.password_id:
        raise _bad(f"{where}: a password without password_id")


def _check_public(config: RouterConfig, guest_network: IPv4Network, *, has_public_side: bool) -> None:
    if config.public and not has_public_side:
        raise _bad("public addresses on a router without a public side")
    for public in config.public:
        where = f"public address {public.ip!r}"
        address = _address(public.ip, where)
        if not 1 <= public.prefix <= 32:
            raise _bad(f"{where}: prefix is not between 1 and 32")
        network = IPv4Interface(f"{address}/{public.prefix}").network
        if _address(public.gateway, f"{where}: gateway") == address:
            raise _bad(f"{where} is its own gateway")
        if public.prefix < 32 and IPv4Address(public.gateway) not in network:
            raise _bad(f"{where}: gateway {public.gateway} is not in its network")
        if network.overlaps(guest_network):
            raise _bad(f"{where} lies in the guest network")
    _unique((public.ip for public in config.public), "public address")
    sources = sum(public.source_nat for public in config.public)
    if sources > 1 or (config.public and "source-nat" in config.services and sources != 1):
        raise _bad("not exactly one public address is for source NAT")


def _check_forwards(config: RouterConfig, network: IPv4Network) -> None:
    ours = {public.ip for public in config.public}
    for forward in config.port_forwards:
        where = f"port forward {forward.id!r}"
        if forward.protocol not in ("tcp", "udp"):
            raise _bad(f"{where}: protocol {forward.protocol!r} is neither tcp nor udp")
        if forward.ip not in ours:
            raise _bad(f"{where}: {forward.ip!r} is not one of the public addresses")
        _guest_address(forward.guest_ip, network, config, where)
        for start, end in ((forward.public_start, forward.public_end), (forward.guest_start, forward.guest_end)):
            if not 1 <= start <= end <= 65535:
                raise _bad(f"{where}: {start}-{end} is not a range of ports")
        if forward.public_end - forward.public_start != forward.guest_end - forward.guest_start:
            raise _bad(f"{where}: the ranges differ in length")
    _unique((forward.id for forward in config.port_forwards), "id of a port forward")
    _no_overlap(config.port_forwards)


def _no_overlap(forwards: Iterable[PortForward]) -> None:
    before: PortForward | None = None
    for forward in sorted(forwards, key=lambda one: (one.ip, one.protocol, one.public_start)):
        same_place = before is not None and (before.ip, before.protocol) == (forward.ip, forward.protocol)
        if before is not None and same_place and forward.public_start <= before.public_end:
            raise _bad(f"port forwards {before.id!r} and {forward.id!r} overlap")
        before = forward


def _guest_address(text: str, network: IPv4Network, config: RouterConfig, where: str) -> None:
    address = _address(text, where)
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise _bad(f"{where}: {text} is not a host's address in {network}")
    if text == config.guest_ip:
        raise _bad(f"{where}: {text} is the router's own")


def _address(text: str, where: str) -> IPv4Address:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        raise _bad(f"{where}: {text!r} is not an IPv4 address") from None
    if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
        raise _bad(f"{where}: {text} is not a unicast address of a network")
    return address


def _unique(values: Iterable[Hashable], what: str) -> None:
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            raise _bad(f"twice the same {what}: {value}")
        seen.add(value)


def _printable(text: str) -> bool:
    return all(char.isprintable() for char in text)


def _bad(text: str) -> ConfigRefused:
    return ConfigRefused(Reason.REJECTED, text)


def source_of(public: Iterable[PublicAddress]) -> PublicAddress | None:
    """The address that guests' connections leave with, if any."""
    return next((address for address in public if address.source_nat), None)
