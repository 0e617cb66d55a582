"""The firewall's rules, however they overlap, let in what any of them lets in, by elements that never overlap."""

import itertools
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as some

from pileus.appliance.router.admission import NOBODY, Admission, admission, differing
from pileus.wire.router import FirewallRule

CIDRS = ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.2.0.0/16", "192.0.2.0/24")
SOURCES = ("10.1.2.3", "10.1.2.4", "10.1.9.9", "10.2.0.1", "10.9.9.9", "192.0.2.1", "8.8.8.8")
IP = "203.0.113.10"


@some.composite
def rules(draw: some.DrawFn) -> tuple[FirewallRule, ...]:
    made = []
    for number in range(draw(some.integers(0, 8))):
        protocol = draw(some.sampled_from(("tcp", "tcp", "udp")))
        start = draw(some.integers(1, 12))
        end = draw(some.integers(start, 14))
        cidrs = draw(some.lists(some.sampled_from(CIDRS), min_size=1, max_size=3))
        made.append(FirewallRule(f"r{number}", IP, protocol, start, end, cidrs=tuple(cidrs)))
    return tuple(made)


def matching(admitted: Admission, protocol: str, port: int, source: str) -> list[int]:
    """Marks of the elements that a connection is in."""
    found = []
    for element in admitted.elements():
        key, mark = element.split(" : ")
        ports, cidr, ip, its_protocol = key.split(" . ")
        first, _, last = ports.partition("-")
        inside = int(first) <= port <= int(last or first) and IPv4Address(source) in IPv4Network(cidr)
        if inside and ip == IP and its_protocol == protocol:
            found.append(int(mark, 16))
    return found


def letting_in(asked: Sequence[FirewallRule], protocol: str, port: int, source: str) -> set[str]:
    return {
        rule.id
        for rule in asked
        if rule.protocol == protocol
        and rule.start <= port <= rule.end
        and any(IPv4Address(source) in IPv4Network(cidr) for cidr in rule.cidrs)
    }


@given(rules())
def test_what_a_rule_lets_in_is_in_one_element_and_nothing_else_is(asked: tuple[FirewallRule, ...]) -> None:
    admitted = admission(asked)
    for protocol, port, source in itertools.product(("tcp", "udp"), range(16), SOURCES):
        found = matching(admitted, protocol, port, source)
        expected = letting_in(asked, protocol, port, source)
        assert len(found) == bool(expected)
        assert all(admitted.marks[rule] != 0 for rule in expected)
        assert not found or found[0] in {admitted.marks[rule] for rule in expected}


@given(rules(), rules())
def test_a_change_leads_to_the_same_as_a_start(
    first: tuple[FirewallRule, ...], second: tuple[FirewallRule, ...]
) -> None:
    changed, started = admission(second, admission(first)), admission(second)
    assert (changed.marks, changed.places) == (started.marks, started.places)
    before = admission(first)
    step = admission(second, before).step_from(before)
    assert (before.elements() - step.gone) | step.come == started.elements()
    assert (before.live() - step.marks_gone) | step.marks_come == started.live()
    assert not step.gone & step.come


def test_many_rules_that_overlap_change_as_they_would_start() -> None:
    wide = tuple(FirewallRule(f"w{port}", IP, "tcp", port, port + 300) for port in range(1, 2000, 10))
    narrow = FirewallRule("n", IP, "tcp", 1, 1500, cidrs=("10.0.0.0/8",))
    everything = FirewallRule("a", IP, "tcp", 1, 65535)
    admitted = NOBODY
    for asked in ((*wide, narrow), wide, (everything, *wide), wide[50:], (*wide, narrow, everything)):
        admitted = admission(asked, admitted)
        assert admitted.elements() == admission(asked).elements()


def test_icmp_is_asked_for_by_type_and_code() -> None:
    def elements(kind: int, code: int) -> set[str]:
        admitted = admission((FirewallRule("p", IP, "icmp", icmp_type=kind, icmp_code=code),))
        return {element.split(" : ")[0] for element in admitted.elements()}

    assert elements(8, 0) == {f"2048 . 0.0.0.0/0 . {IP} . icmp"}
    assert elements(8, -1) == {f"2048-2303 . 0.0.0.0/0 . {IP} . icmp"}
    assert elements(-1, -1) == {f"0-65535 . 0.0.0.0/0 . {IP} . icmp"}


def test_two_rules_never_have_the_same_mark() -> None:
    asked = tuple(FirewallRule(f"r{number}", IP, "tcp", 80, 80) for number in range(3000))
    assert len(set(admission(asked).marks.values())) == 3000


@given(some.lists(some.integers(0, 20), unique=True), some.lists(some.integers(0, 20), unique=True))
def test_differences_are_found_whatever_the_order(old: list[int], new: list[int]) -> None:
    gone, come = differing(tuple(old), tuple(new))
    assert set(gone) == set(old) - set(new)
    assert set(come) == set(new) - set(old)
