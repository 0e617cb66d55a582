"""IPv4 addresses, ranges and VLAN ranges as the API takes them: parsed with errors that name the parameter."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from pileus.server.domain.errors import ParameterError

MAX_RANGE = 65536
"""Most addresses that one range may hold."""


WIDEST, NARROWEST = 8, 30
"""Bounds of the prefix of a network that holds guests, hosts or public addresses, with a gateway."""


def address(text: str, parameter: str) -> IPv4Address:
    """One IPv4 address."""
    try:
        return IPv4Address(text)
    except ValueError:
        raise ParameterError(f"{parameter} must be an IPv4 address, got {text!r}", parameter=parameter) from None


def cidr(text: str, parameter: str) -> IPv4Network:
    """An IPv4 network in CIDR form, host bits zero, with room for a gateway and at least one more."""
    try:
        if "/" not in text:
            raise ValueError
        found = IPv4Network(text)
    except ValueError:
        raise ParameterError(
            f"{parameter} must be a network such as 10.1.1.0/24, got {text!r}", parameter=parameter
        ) from None
    _check_width(found, parameter)
    return found


def subnet(gateway: str, netmask: str) -> IPv4Network:
    """The network that a gateway and a netmask describe. Its gateway is a usable address of it."""
    inside = address(gateway, "gateway")
    bits = int(address(netmask, "netmask"))
    inverted = bits ^ 0xFFFFFFFF
    if inverted & (inverted + 1):
        raise ParameterError(f"netmask must be like 255.255.255.0, got {netmask!r}", parameter="netmask")
    network = IPv4Network((inside, 32 - inverted.bit_length()), strict=False)
    _check_width(network, "netmask")
    if inside in (network.network_address, network.broadcast_address):
        raise ParameterError(f"gateway {inside} is the network or broadcast address of {network}", parameter="gateway")
    return network


def _check_width(network: IPv4Network, parameter: str) -> None:
    if not WIDEST <= network.prefixlen <= NARROWEST:
        raise ParameterError(
            f"{parameter} must describe a network from /{WIDEST} to /{NARROWEST}, got /{network.prefixlen}",
            parameter=parameter,
        )


@dataclass(frozen=True)
class Range:
    """An inclusive range of addresses."""

    first: IPv4Address
    last: IPv4Address

    def __iter__(self) -> Iterator[IPv4Address]:
        return (IPv4Address(n) for n in range(int(self.first), int(self.last) + 1))

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def __contains__(self, other: IPv4Address) -> bool:
        return self.first <= other <= self.last

    def overlaps(self, other: "Range") -> bool:
        """Whether any address is in both."""
        return self.first <= other.last and other.first <= self.last


def range_in(network: IPv4Network, start: str, end: str | None) -> Range:
    """A range of usable addresses inside `network`; without an end it is one address."""
    first = address(start, "startip")
    last = address(end, "endip") if end else first
    if last < first:
        raise ParameterError(f"endip {last} comes before startip {first}", parameter="endip")
    for value, parameter in ((first, "startip"), (last, "endip")):
        if value not in network:
            raise ParameterError(f"{parameter} {value} is not in the network {network}", parameter=parameter)
    if network.prefixlen < 31 and (first == network.network_address or last == network.broadcast_address):
        raise ParameterError(
            f"the range {first}-{last} holds the network or broadcast address of {network}", parameter="startip"
        )
    found = Range(first, last)
    if len(found) > MAX_RANGE:
        raise ParameterError(f"a range holds at most {MAX_RANGE} addresses", parameter="endip")
    return found


def vlan_range(text: str, *, highest: int, parameter: str = "vlan") -> tuple[int, int]:
    """A range of VLAN ids or VNIs such as "500-1999", or one number."""
    parts = text.split("-")
    if len(parts) > 2 or not all(p.strip().isascii() and p.strip().isdecimal() and len(p) < 16 for p in parts):
        raise ParameterError(f"{parameter} must be a range such as 500-1999, got {text!r}", parameter=parameter)
    first, last = int(parts[0]), int(parts[-1])
    if not 1 <= first <= last <= highest:
        raise ParameterError(f"{parameter} must lie between 1 and {highest}, got {text!r}", parameter=parameter)
    return first, last
