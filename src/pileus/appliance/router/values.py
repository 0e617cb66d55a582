"""Checks of single values of a config. Each raises ConfigRefused (REJECTED) with the place that was given to it."""

from collections.abc import Hashable, Iterable
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import NoReturn

from pileus.appliance.router.errors import ConfigRefused
from pileus.wire.operations import Reason
from pileus.wire.router import RouterConfig


def refuse(text: str) -> NoReturn:
    """Refuse the config for what the text says."""
    raise ConfigRefused(Reason.REJECTED, text)


def guest_address(text: str, network: IPv4Network, config: RouterConfig, where: str) -> None:
    """An address that a guest of `network` may have."""
    address = unicast(text, where)
    if address not in network or address in (network.network_address, network.broadcast_address):
        refuse(f"{where}: {text} is not a host's address in {network}")
    if text == config.guest_ip:
        refuse(f"{where}: {text} is the router's own")


def unicast(text: str, where: str) -> IPv4Address:
    """An address that a machine of some network may have."""
    address = _parsed(text)
    if address is None:
        refuse(f"{where}: {text!r} is not an IPv4 address")
    if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
        refuse(f"{where}: {text} is not a unicast address of a network")
    return address


def cidr(text: str, where: str) -> None:
    """Addresses by their first bits: `10.1.0.0/16`, or one address alone."""
    address, slash, bits = text.partition("/")
    prefix = bits if slash else "32"
    if _parsed(address) is None or not (prefix.isascii() and prefix.isdecimal() and int(prefix) <= 32):
        refuse(f"{where}: {text!r} is not an IPv4 CIDR")


def ports(start: int, end: int, where: str) -> None:
    """A range of ports, both ends included."""
    if not 1 <= start <= end <= 65535:
        refuse(f"{where}: {start}-{end} is not a range of ports")


def unique(values: Iterable[Hashable], what: str) -> None:
    """No value comes twice."""
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            refuse(f"twice the same {what}: {value}")
        seen.add(value)


def printable(text: str) -> bool:
    """Has no control characters."""
    return all(char.isprintable() for char in text)


@lru_cache(maxsize=65536)
def _parsed(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None
