"""Which addresses an image may be fetched from: everything public, and what the cloud's operator allows.

A name is resolved once and every address it has is checked; the caller then connects to one of the checked addresses,
so a second DNS answer cannot lead elsewhere.
"""

import ipaddress
import socket
from collections.abc import Sequence

from pileus.wire.operations import Reason, Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def networks(cidrs: Sequence[str]) -> tuple[Network, ...]:
    """Parse the allowed networks. Raises Refused (REJECTED) for what is none: the operator must see the mistake."""
    try:
        return tuple(ipaddress.ip_network(cidr.strip(), strict=False) for cidr in cidrs if cidr.strip())
    except ValueError as error:
        raise Refused(Reason.REJECTED, f"the list of allowed internal sites is wrong: {error}") from error


def checked(host: str, port: int, allowed: Sequence[Network]) -> list[str]:
    """Addresses of `host`, all of them fit to connect to.

    Raises Refused: UNREACHABLE when the name has no address, REJECTED when any of them is forbidden.
    """
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refused(Reason.UNREACHABLE, f"the name {host} cannot be resolved") from error
    addresses = list(dict.fromkeys(str(answer[4][0]).split("%")[0] for answer in answers))
    for address in addresses:
        if not permitted(ipaddress.ip_address(address), allowed):
            raise Refused(Reason.REJECTED, f"{host} has the address {address}, which is not allowed as a source")
    return addresses


def permitted(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether it may be connected to: it is in an allowed network, or public together with all it stands for."""
    if any(address.version == network.version and address in network for network in allowed):
        return True
    inner = _inside(address)
    if inner is not None:
        return permitted(inner, allowed)
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_private
        or address.is_unspecified
    )


def _inside(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to (mapped, 6to4, Teredo, NAT64)."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
