"""Checks of a config's public side: addresses, and what leads in by them."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from pileus.appliance.router.admission import differing
from pileus.appliance.router.values import cidr, guest_address, ports, refuse, unicast, unique
from pileus.wire.router import FirewallRule, PortForward, RouterConfig

ALGORITHMS = frozenset({"roundrobin", "leastconn", "source"})

_id = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_public(config: RouterConfig, guest_network: IPv4Network, *, has_public_side: bool) -> None:
    if config.public and not has_public_side:
        refuse("public addresses on a router without a public side")
    for public in config.public:
        where = f"public address {public.ip!r}"
        address = unicast(public.ip, where)
        if not 1 <= public.prefix <= 32:
            refuse(f"{where}: prefix is not between 1 and 32")
        network = IPv4Interface(f"{address}/{public.prefix}").network
        if unicast(public.gateway, f"{where}: gateway") == address:
            refuse(f"{where} is its own gateway")
        if public.prefix < 32 and IPv4Address(public.gateway) not in network:
            refuse(f"{where}: gateway {public.gateway} is not in its network")
        if network.overlaps(guest_network):
            refuse(f"{where} lies in the guest network")
    unique((public.ip for public in config.public), "public address")
    sources = sum(public.source_nat for public in config.public)
    if sources > 1 or (config.public and "source-nat" in config.services and sources != 1):
        refuse("not exactly one public address is for source NAT")


def check_forwards(config: RouterConfig, network: IPv4Network) -> None:
    ours = {public.ip for public in config.public}
    for forward in config.port_forwards:
        where = f"port forward {forward.id!r}"
        if forward.protocol not in ("tcp", "udp"):
            refuse(f"{where}: protocol {forward.protocol!r} is neither tcp nor udp")
        if forward.ip not in ours:
            refuse(f"{where}: {forward.ip!r} is not one of the public addresses")
        guest_address(forward.guest_ip, network, config, where)
        ports(forward.public_start, forward.public_end, where)
        ports(forward.guest_start, forward.guest_end, where)
        if forward.public_end - forward.public_start != forward.guest_end - forward.guest_start:
            refuse(f"{where}: the ranges differ in length")
    unique((forward.id for forward in config.port_forwards), "id of a port forward")
    _no_overlap(config.port_forwards)


def _no_overlap(forwards: Iterable[PortForward]) -> None:
    before: PortForward | None = None
    for forward in sorted(forwards, key=lambda one: (one.ip, one.protocol, one.public_start)):
        same_place = before is not None and (before.ip, before.protocol) == (forward.ip, forward.protocol)
        if before is not None and same_place and forward.public_start <= before.public_end:
            refuse(f"port forwards {before.id!r} and {forward.id!r} overlap")
        before = forward


def check_firewall(config: RouterConfig, before: RouterConfig | None) -> None:
    """Rules of the firewall; those of `before`, which was checked, are only looked at when addresses have changed."""
    ours = {public.ip for public in config.public}
    known = before.firewall if before is not None and before.public == config.public else ()
    _, new = differing(known, config.firewall)
    for rule in new:
        where = f"firewall rule {rule.id!r}"
        if not _id.fullmatch(rule.id):
            refuse(f"{where}: not an id")
        if rule.ip not in ours:
            refuse(f"{where}: {rule.ip!r} is not one of the public addresses")
        match rule.protocol:
            case "tcp" | "udp":
                ports(rule.start, rule.end, where)
            case "icmp":
                _check_icmp(rule, where)
            case _:
                refuse(f"{where}: protocol {rule.protocol!r} is none of tcp, udp and icmp")
        if not rule.cidrs:
            refuse(f"{where}: no source CIDR")
        for source in rule.cidrs:
            cidr(source, where)
    if new and len({rule.id for rule in config.firewall}) < len(config.firewall):
        unique((rule.id for rule in config.firewall), "id of a firewall rule")


def _check_icmp(rule: FirewallRule, where: str) -> None:
    if not -1 <= rule.icmp_type <= 255 or not -1 <= rule.icmp_code <= 255:
        refuse(f"{where}: ICMP type {rule.icmp_type} or code {rule.icmp_code} is not between -1 and 255")
    if rule.icmp_type == -1 and rule.icmp_code != -1:
        refuse(f"{where}: ICMP code {rule.icmp_code} of every type")


def check_static_nats(config: RouterConfig, network: IPv4Network) -> None:
    """A guest and a public address have each other alone, and nothing else leads in by the address."""
    free = {public.ip for public in config.public if not public.source_nat}
    taken = {forward.ip for forward in config.port_forwards} | {one.ip for one in config.load_balancers}
    for static in config.static_nats:
        where = f"static NAT of {static.ip!r}"
        if static.ip not in free:
            refuse(f"{where}: not one of the public addresses beside that of source NAT")
        if static.ip in taken:
            refuse(f"{where}: a port forward or balancer leads in by the same address")
        guest_address(static.guest_ip, network, config, where)
    unique((static.ip for static in config.static_nats), "address of a static NAT")
    unique((static.guest_ip for static in config.static_nats), "guest of a static NAT")


def check_balancers(config: RouterConfig, network: IPv4Network) -> None:
    """Balancers have doors of their own."""
    ours = {public.ip for public in config.public}
    tcp = [one for one in config.port_forwards if one.protocol == "tcp"]
    for balancer in config.load_balancers:
        where = f"balancer {balancer.id!r}"
        if not _id.fullmatch(balancer.id):
            refuse(f"{where}: not an id")
        if balancer.ip not in ours:
            refuse(f"{where}: {balancer.ip!r} is not one of the public addresses")
        ports(balancer.port, balancer.port, where)
        ports(balancer.guest_port, balancer.guest_port, where)
        if balancer.algorithm not in ALGORITHMS:
            refuse(f"{where}: algorithm {balancer.algorithm!r} is none of roundrobin, leastconn and source")
        for member in balancer.members:
            guest_address(member, network, config, where)
        unique(balancer.members, f"member of {where}")
        for forward in tcp:
            if forward.ip == balancer.ip and forward.public_start <= balancer.port <= forward.public_end:
                refuse(f"{where} and port forward {forward.id!r} overlap")
    unique((balancer.id for balancer in config.load_balancers), "id of a balancer")
    unique(((one.ip, one.port) for one in config.load_balancers), "address and port of balancers")
