"""Checks of a config's VPN. No text says a secret: they reach logs."""

import re
from ipaddress import IPv4Network

from pileus.appliance.router.values import printable, refuse, unicast, unique
from pileus.wire.router import RouterConfig

MAX_SECRET_CHARS = 255
PORTS = (500, 1701, 4500)

_name = re.compile(r"[A-Za-z0-9@._-]{1,64}")
_password = re.compile(r"[A-Za-z0-9@#._=+-]{1,64}")


def check_vpn(config: RouterConfig, network: IPv4Network) -> None:
    """The way in, the clients' addresses, and who may use them."""
    vpn = config.vpn
    if vpn is None:
        return
    if vpn.ip not in {public.ip for public in config.public}:
        refuse(f"vpn: {vpn.ip!r} is not one of the public addresses")
    if vpn.ip in {one.ip for one in config.static_nats}:
        refuse(f"vpn: {vpn.ip} belongs to a guest by static NAT")
    for forward in config.port_forwards:
        taken = any(forward.public_start <= port <= forward.public_end for port in PORTS)
        if (forward.ip, forward.protocol) == (vpn.ip, "udp") and taken:
            refuse(f"vpn and port forward {forward.id!r} overlap")
    if not 1 <= len(vpn.preshared_key) <= MAX_SECRET_CHARS or not printable(vpn.preshared_key):
        refuse("vpn: the pre-shared key is empty, too long or not printable")
    local, first, last = (unicast(ip, f"vpn: {what}") for ip, what in _ends(config))
    if first > last or first <= local <= last:
        refuse(f"vpn: {first}-{last} is not a range of addresses without {local}")
    for address in (local, first, last):
        if address in network:
            refuse(f"vpn: {address} lies in the guest network")
    if first <= network.network_address <= last:
        refuse(f"vpn: {first}-{last} holds the guest network")
    for user in vpn.users:
        if not _name.fullmatch(user.name):
            refuse(f"vpn user {user.name!r}: not letters, digits and @ . _ -")
        if not _password.fullmatch(user.password):
            refuse(f"vpn user {user.name!r}: the password is not letters, digits and @ # . - _ = +")
    unique((user.name for user in vpn.users), "VPN user")


def _ends(config: RouterConfig) -> tuple[tuple[str, str], ...]:
    if config.vpn is None:
        return ()
    return (config.vpn.local_ip, "local_ip"), (config.vpn.first_ip, "first_ip"), (config.vpn.last_ip, "last_ip")
