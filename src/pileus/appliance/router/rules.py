"""Turns a checked config into packet filter and NAT rules: pure, no I/O.

The rules proper (`chains`) depend on the shape of the network only. What comes and goes, the port forwards, are
elements of sets and maps, so that one more costs one element whatever their number, and no rule is reloaded.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pileus.appliance.router.checks import network_of, source_of
from pileus.wire.router import PortForward, RouterConfig

TABLE = "ip pileus"

KEPT = "kept"
SHIFTED = "shifted"
FORWARDED = "forwarded"

_SETS = {
    KEPT: "map kept { type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }",
    SHIFTED: "map shifted { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }",
    FORWARDED: "set forwarded { type ipv4_addr . inet_proto . ipv4_addr . inet_service; flags interval; }",
}
"""`kept` leads to a guest with the port as it is, `shifted` to another port (no ranges: the kernel cannot count along).
`forwarded` holds (public address, protocol, guest, guest's port) and lets the packets through."""


@dataclass(frozen=True)
class Ruleset:
    """Rules of a config. `elements` has, for each set or map, the text of each element."""

    chains: str
    elements: dict[str, frozenset[str]]


def ruleset(config: RouterConfig, *, guest: str, public: str) -> Ruleset:
    """Rules for `config` on the interfaces `guest` and `public` ("" when there is no public side)."""
    chains = "\n".join([*_chains(config, guest, public), ""])
    return Ruleset(chains=chains, elements=_elements(config.port_forwards))


def whole(rules: Ruleset) -> str:
    """Commands that put `rules` in place of whatever our table holds, as one transaction."""
    lines = [f"add table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{", *_SETS.values(), rules.chains, "}"]
    for name, elements in rules.elements.items():
        lines += _element_command("add", name, elements)
    return "\n".join([*lines, ""])


def change(old: Ruleset, new: Ruleset) -> str:
    """Commands that lead from `old`, which is in place, to `new`, as one transaction; "" when they are equal."""
    if old.chains != new.chains:
        return whole(new)
    lines: list[str] = []
    for name in _SETS:
        lines += _element_command("delete", name, old.elements[name] - new.elements[name])
    for name in _SETS:
        lines += _element_command("add", name, new.elements[name] - old.elements[name])
    return "\n".join([*lines, ""]) if lines else ""


def _element_command(verb: str, name: str, elements: frozenset[str]) -> list[str]:
    if not elements:
        return []
    # A map's element is named by its key alone when it goes.
    texts = sorted(text.split(" : ")[0] if verb == "delete" else text for text in elements)
    return [f"{verb} element {TABLE} {name} {{ {', '.join(texts)} }}"]


def _chains(config: RouterConfig, guest: str, public: str) -> Iterator[str]:
    network = network_of(config)
    yield from _input(config, guest, str(network))
    yield from _forward(config, guest, public, str(network))
    yield "chain prerouting { type nat hook prerouting priority dstnat; policy accept;"
    yield f"dnat to ip daddr . meta l4proto . th dport map @{KEPT}"
    yield f"dnat ip to ip daddr . meta l4proto . th dport map @{SHIFTED}"
    yield "}"
    yield "chain postrouting { type nat hook postrouting priority srcnat; policy accept;"
    # A guest that uses its own network's public address: the answer must come back through here.
    yield f'oifname "{guest}" ip saddr {network} ct status dnat snat to {config.guest_ip}'
    source = source_of(config.public)
    if public and source is not None and "source-nat" in config.services:
        yield f'oifname "{public}" ip saddr {network} snat to {source.ip}'
    yield "}"


def _input(config: RouterConfig, guest: str, network: str) -> Iterator[str]:
    """To the router itself: the services of the network, from guests only."""
    yield "chain input { type filter hook input priority filter; policy drop;"
    yield 'iifname "lo" accept'
    yield "ct state invalid drop"
    yield "ct state established,related accept"
    if "dhcp" in config.services:
        yield f'iifname "{guest}" udp sport 68 udp dport 67 accept'
    ours = f'iifname "{guest}" ip saddr {network} ip daddr {config.guest_ip}'
    yield f"{ours} icmp type echo-request accept"
    if "dns" in config.services:
        yield f"{ours} meta l4proto {{ tcp, udp }} th dport 53 accept"
    if "user-data" in config.services:
        yield f"{ours} tcp dport 80 accept"
    if "password" in config.services:
        yield f"{ours} tcp dport 8080 accept"
    yield "}"


def _forward(config: RouterConfig, guest: str, public: str, network: str) -> Iterator[str]:
    """Through the router: out from guests, and in by a port forward that still exists."""
    yield "chain forward { type filter hook forward priority filter; policy drop;"
    yield "ct state invalid drop"
    yield "ct state related accept"
    # Guests' networks may be tunnels with less room than the public side, and not everyone lets ICMP tell.
    yield "tcp flags syn / syn,rst tcp option maxseg size set rt mtu"
    # Asked for every packet of a forwarded connection: when the forward goes, its connections end.
    original = "ct status dnat ct direction original ct original ip daddr . meta l4proto . ip daddr . th dport"
    reply = "ct status dnat ct direction reply ct original ip daddr . meta l4proto . ip saddr . th sport"
    yield f"{original} @{FORWARDED} accept"
    yield f"{reply} @{FORWARDED} accept"
    yield "ct status dnat drop"
    yield "ct state established accept"
    if public and "gateway" in config.services:
        # Link-local is where a cloud's own control planes live; nothing out there is for guests.
        yield f'iifname "{guest}" oifname "{public}" ip saddr {network} ip daddr != 169.254.0.0/16 accept'
    yield "}"


def _elements(forwards: Iterable[PortForward]) -> dict[str, frozenset[str]]:
    kept: set[str] = set()
    shifted: set[str] = set()
    through: defaultdict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)
    for one in forwards:
        place = f"{one.ip} . {one.protocol}"
        if one.public_start == one.guest_start:
            kept.add(f"{place} . {_span(one.public_start, one.public_end)} : {one.guest_ip}")
        else:
            for offset in range(one.public_end - one.public_start + 1):
                shifted.add(f"{place} . {one.public_start + offset} : {one.guest_ip} . {one.guest_start + offset}")
        through[one.ip, one.protocol, one.guest_ip].append((one.guest_start, one.guest_end))
    forwarded = {
        f"{ip} . {protocol} . {guest_ip} . {_span(start, end)}"
        for (ip, protocol, guest_ip), spans in through.items()
        for start, end in _merged(spans)
    }
    return {KEPT: frozenset(kept), SHIFTED: frozenset(shifted), FORWARDED: frozenset(forwarded)}


def _span(start: int, end: int) -> str:
    return str(start) if start == end else f"{start}-{end}"


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ports without overlaps, which a set refuses: two forwards may lead to one port of a guest."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
