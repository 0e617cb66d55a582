"""Turns a checked config into packet filter and NAT rules: pure, no I/O.

The rules proper (`chains`) depend on the shape of the network only. What comes and goes is elements of sets and maps
(see `sets`), so that one more costs one element whatever their number, and no rule is reloaded.

What comes in is judged by what the client asked for: conntrack keeps that for both directions of a connection. So
every packet of a connection is asked for the rule it came in by, and a rule that goes ends its connections.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pileus.appliance.router import sets
from pileus.appliance.router.admission import NOBODY, Admission, admission
from pileus.appliance.router.checks import network_of, source_of
from pileus.appliance.router.netlink import Delta
from pileus.appliance.router.sets import SETS, TABLE, spanned
from pileus.wire.router import PortForward, RouterConfig

CHAINS = (
    "admitted",
    "input",
    "forward",
    "prerouting",
    "postrouting",
    "arrived",
    "left",
    "entering",
    "answering",
    "passing",
)

_ASKED = "ct original proto-dst . ct original ip daddr . meta l4proto"
"""What the client asked for. nft knows the type of the port only where the protocol is named before."""
_TAKEN = "ct original proto-dst . ct original ip saddr . ct original ip daddr . meta l4proto"


@dataclass(frozen=True)
class Ruleset:
    """Rules of a config: `plain` has, for each set or map but those of the firewall, the text of each element."""

    chains: str
    plain: dict[str, frozenset[str]]
    admission: Admission

    def elements(self) -> dict[str, frozenset[str]]:
        """All elements, the firewall's too: that takes a while where there are many."""
        live = self.admission.live()
        return {**self.plain, **_shared_out(self.admission.elements()), sets.LET_IN: live, sets.LET_OUT: live}


def ruleset(config: RouterConfig, *, guest: str, public: str, before: Ruleset | None = None) -> Ruleset:
    """Rules for `config` on the interfaces `guest` and `public` ("" when there is no public side).

    What was worked out for `before` is used again.
    """
    chains = "\n".join([*_chains(config, guest, public), ""])
    wanted = config.firewall if "firewall" in config.services else ()
    admitted = admission(wanted, before.admission if before else NOBODY)
    plain = _forwards(config.port_forwards) | _statics(config) | _entries(config)
    return Ruleset(chains=chains, plain=plain, admission=admitted)


def whole(rules: Ruleset, counted: Mapping[str, Mapping[str, int]] | None = None) -> str:
    """Commands that put `rules` in place of whatever our table holds, as one transaction.

    `counted` has bytes by element of the sets that count: these go on from there.
    """
    lines = [f"add table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    lines += [*(kind.declared(name) for name, kind in SETS.items()), rules.chains, "}"]
    for name, elements in rules.elements().items():
        known = counted.get(name, {}) if counted else {}
        texts = (f"{text} counter packets 0 bytes {known[text]}" if text in known else text for text in elements)
        lines += _element_command("add", name, texts)
    return "\n".join([*lines, ""])


def reshaped(old: Ruleset, new: Ruleset) -> str:
    """Commands that lead from `old`, which is in place, to `new` with other chains, as one transaction."""
    changes = delta(old, new)
    lines = [f"flush chain {TABLE} {name}" for name in CHAINS]
    for name, elements in changes.gone.items():
        # A map's element is named by its key alone when it goes.
        lines += _element_command("delete", name, (text.partition(" : ")[0] for text in elements))
    for name, elements in changes.come.items():
        lines += _element_command("add", name, elements)
    return "\n".join([*lines, f"table {TABLE} {{", new.chains, "}", ""])


def delta(old: Ruleset, new: Ruleset) -> Delta:
    """The elements that lead from `old`, which is in place, to `new`."""
    step = new.admission.step_from(old.admission)
    gone = {name: old.plain[name] - new.plain[name] for name in old.plain}
    come = {name: new.plain[name] - old.plain[name] for name in new.plain}
    gone |= {**_shared_out(step.gone), sets.LET_IN: step.marks_gone, sets.LET_OUT: step.marks_gone}
    come |= {**_shared_out(step.come), sets.LET_IN: step.marks_come, sets.LET_OUT: step.marks_come}
    return Delta(
        gone={name: elements for name, elements in gone.items() if elements},
        come={name: elements for name, elements in come.items() if elements},
    )


def _shared_out(elements: Iterable[str]) -> dict[str, frozenset[str]]:
    """The firewall's elements by their maps."""
    maps: tuple[list[str], ...] = tuple([] for _ in sets.FIREWALL)
    for element in elements:
        maps[int(element[-1], 16) % len(maps)].append(element)
    return {name: frozenset(shard) for name, shard in zip(sets.FIREWALL, maps, strict=True)}


def _element_command(verb: str, name: str, elements: Iterable[str]) -> list[str]:
    texts = sorted(elements)
    return [f"{verb} element {TABLE} {name} {{ {', '.join(texts)} }}"] if texts else []


def _chains(config: RouterConfig, guest: str, public: str) -> Iterator[str]:
    network = str(network_of(config))
    yield from _admission()
    yield from _input(config, guest, public, network)
    yield from _forward(config, guest, public, network)
    yield "chain prerouting { type nat hook prerouting priority dstnat; policy accept;"
    yield f"dnat to th dport . ip daddr . meta l4proto map @{sets.KEPT}"
    yield f"dnat ip to th dport . ip daddr . meta l4proto map @{sets.SHIFTED}"
    yield f"dnat to ip daddr map @{sets.STATIC}"
    yield "}"
    yield "chain postrouting { type nat hook postrouting priority srcnat; policy accept;"
    # A guest that uses its own network's public address: the answer must come back through here.
    yield f'oifname "{guest}" ip saddr {network} ct status dnat snat to {config.guest_ip}'
    source = source_of(config.public)
    if public:
        yield f'oifname "{public}" snat to ip saddr map @{sets.LEAVING}'
    if public and source is not None and "source-nat" in config.services:
        yield f'oifname "{public}" ip saddr {network} snat to {source.ip}'
    yield "}"
    yield from _counting(public)


def _admission() -> Iterator[str]:
    """Returns for a connection that a firewall rule lets in, and for nothing else."""
    let = (
        f"ct direction original ct mark @{sets.LET_IN} return",
        f"ct direction reply ct mark @{sets.LET_OUT} return",
    )
    yield "chain admitted {"
    # Once for each connection, and again when its rule has gone: another may let it in as well.
    yield from let
    for protocol in ("tcp", "udp", "icmp"):
        for name in sets.FIREWALL:
            yield f"meta l4proto {protocol} ct mark set {_TAKEN} map @{name}"
    yield from let
    yield "drop"
    yield "}"


def _input(config: RouterConfig, guest: str, public: str, network: str) -> Iterator[str]:
    """To the router itself: the services of the network from guests, balancers and ping from outside."""
    yield "chain input { type filter hook input priority filter; policy drop;"
    yield 'iifname "lo" accept'
    yield "ct state invalid drop"
    yield "ct state related accept"
    if "firewall" in config.services:
        yield f"ip daddr . tcp dport @{sets.BALANCED} ip saddr != {network} jump admitted"
        if public:
            yield f'iifname "{public}" icmp type echo-request jump admitted'
            yield f'iifname "{public}" icmp type echo-request accept'
    yield f"ip daddr . tcp dport @{sets.BALANCED} accept"
    yield from _tunnels(config, public)
    # What is let in is asked for with every packet; only answers to the router's own need no more.
    yield "ct state established ct direction reply accept"
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


def _tunnels(config: RouterConfig, public: str) -> Iterator[str]:
    """To the router: keys and ESP from anyone, L2TP out of IPsec alone; from a tunnel the name service and ping."""
    vpn = config.vpn
    if vpn is None or not public or "vpn" not in config.services:
        return
    ours = f'iifname "{public}" ip daddr {vpn.ip}'
    yield f"{ours} udp dport {{ 500, 4500 }} accept"
    yield f"{ours} meta l4proto esp accept"
    yield f"{ours} udp dport 1701 meta secpath exists accept"
    client = f'iifname "ppp*" ip saddr {vpn.first_ip}-{vpn.last_ip} ip daddr {{ {config.guest_ip}, {vpn.local_ip} }}'
    yield f"{client} icmp type echo-request accept"
    if "dns" in config.services:
        yield f"{client} meta l4proto {{ tcp, udp }} th dport 53 accept"


def _forward(config: RouterConfig, guest: str, public: str, network: str) -> Iterator[str]:
    """Through the router: out from guests, and in by a forward or a static NAT that still exists."""
    yield "chain forward { type filter hook forward priority filter; policy drop;"
    yield "ct state invalid drop"
    yield "ct state related accept"
    # Guests' networks may be tunnels with less room than the public side, and not everyone lets ICMP tell.
    yield "tcp flags syn / syn,rst tcp option maxseg size set rt mtu"
    if "firewall" in config.services:
        # The network's own guests are not outside, whichever address they use.
        yield f"ct status dnat ct original ip saddr != {network} jump admitted"
    # Asked for every packet of a forwarded connection: when the forward goes, its connections end.
    original, reply = "ct status dnat ct direction original", "ct status dnat ct direction reply"
    yield f"{original} ip daddr . th dport . ct original ip daddr . meta l4proto @{sets.FORWARDED} accept"
    yield f"{reply} ip saddr . th sport . ct original ip daddr . meta l4proto @{sets.FORWARDED} accept"
    yield f"{original} ct original ip daddr . ip daddr @{sets.OWNED} accept"
    yield f"{reply} ct original ip daddr . ip saddr @{sets.OWNED} accept"
    yield "ct status dnat drop"
    # The same for what a guest began with an address of its own.
    source = source_of(config.public)
    other = f"ct reply ip daddr != {source.ip} " if source is not None else ""
    yield f"ct status snat {other}ct reply ip daddr . ct original ip saddr != @{sets.OWNED} drop"
    yield "ct state established accept"
    if config.vpn is not None and public and "vpn" in config.services:
        clients = f"{config.vpn.first_ip}-{config.vpn.last_ip}"
        yield f'iifname "ppp*" oifname "{guest}" ip saddr {clients} ip daddr {network} accept'
        yield f'iifname "{guest}" oifname "ppp*" ip saddr {network} ip daddr {clients} accept'
    if public and "gateway" in config.services:
        # Link-local is where a cloud's own control planes live; nothing out there is for guests.
        yield f'iifname "{guest}" oifname "{public}" ip saddr {network} ip daddr != 169.254.0.0/16 accept'
    yield "}"


def _counting(public: str) -> Iterator[str]:
    """Bytes on the public side by address, and by forward and balancer what passed the filters."""
    # Before and after all translation; `continue` lets a rule do nothing but look, which counts.
    yield "chain arrived { type filter hook prerouting priority raw; policy accept;"
    if public:
        yield f'iifname "{public}" ip daddr @{sets.RECEIVED} continue'
    yield "}"
    yield "chain left { type filter hook postrouting priority 300; policy accept;"
    if public:
        yield f'oifname "{public}" ip saddr @{sets.SENT} continue'
    yield "}"
    yield "chain entering { type filter hook input priority 10; policy accept;"
    yield from _counted("original", sets.ENTERED)
    yield "}"
    yield "chain answering { type filter hook output priority 10; policy accept;"
    yield f"ct direction reply ct mark @{sets.LET_OUT} continue"
    yield from _counted("reply", sets.ANSWERED)
    yield "}"
    yield "chain passing { type filter hook forward priority 10; policy accept;"
    yield from _counted("original", sets.ENTERED)
    yield from _counted("reply", sets.ANSWERED)
    yield "}"


def _counted(direction: str, name: str) -> Iterator[str]:
    for protocol in ("tcp", "udp"):
        yield f"ct direction {direction} meta l4proto {protocol} {_ASKED} @{name} continue"


def _forwards(forwards: Iterable[PortForward]) -> dict[str, frozenset[str]]:
    kept: set[str] = set()
    shifted: set[str] = set()
    through: defaultdict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)
    for one in forwards:
        if one.public_start == one.guest_start:
            kept.add(f"{_door(one)} : {one.guest_ip}")
        else:
            for offset in range(one.public_end - one.public_start + 1):
                door = f"{one.public_start + offset} . {one.ip} . {one.protocol}"
                shifted.add(f"{door} : {one.guest_ip} . {one.guest_start + offset}")
        through[one.ip, one.protocol, one.guest_ip].append((one.guest_start, one.guest_end))
    forwarded = {
        f"{guest_ip} . {spanned(start, end)} . {ip} . {protocol}"
        for (ip, protocol, guest_ip), spans in through.items()
        for start, end in _merged(spans)
    }
    return {sets.KEPT: frozenset(kept), sets.SHIFTED: frozenset(shifted), sets.FORWARDED: frozenset(forwarded)}


def _door(forward: PortForward) -> str:
    """Where a forward is asked for."""
    return f"{spanned(forward.public_start, forward.public_end)} . {forward.ip} . {forward.protocol}"


def _statics(config: RouterConfig) -> dict[str, frozenset[str]]:
    return {
        sets.STATIC: frozenset(f"{one.ip} : {one.guest_ip}" for one in config.static_nats),
        sets.LEAVING: frozenset(f"{one.guest_ip} : {one.ip}" for one in config.static_nats),
        sets.OWNED: frozenset(f"{one.ip} . {one.guest_ip}" for one in config.static_nats),
    }


def _entries(config: RouterConfig) -> dict[str, frozenset[str]]:
    """Doors of balancers, and what is counted by address and by door."""
    doors = frozenset(entries(config))
    addresses = frozenset(one.ip for one in config.public)
    return {
        sets.BALANCED: frozenset(f"{one.ip} . {one.port}" for one in config.load_balancers),
        sets.ENTERED: doors,
        sets.ANSWERED: doors,
        sets.RECEIVED: addresses,
        sets.SENT: addresses,
    }


def entries(config: RouterConfig) -> dict[str, str]:
    """What forwards and balancers are counted by: the element of `entered` and `answered`, and its rule's id."""
    found = {_door(one): one.id for one in config.port_forwards}
    return found | {f"{one.port} . {one.ip} . tcp": one.id for one in config.load_balancers}


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ports without overlaps, which a set refuses: two forwards may lead to one port of a guest."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
