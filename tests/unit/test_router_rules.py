"""Packet filter and NAT rules of a config, as text."""

import msgspec
import pytest

from pileus.appliance.router.netlink import Delta
from pileus.appliance.router.rules import CHAINS, Ruleset, delta, reshaped, ruleset, whole
from pileus.appliance.router.sets import (
    ANSWERED,
    BALANCED,
    ENTERED,
    FIREWALL,
    FORWARDED,
    KEPT,
    LEAVING,
    LET_IN,
    LET_OUT,
    OWNED,
    SETS,
    SHIFTED,
    STATIC,
    packed,
    unpacked,
)
from pileus.wire.router import FirewallRule, LoadBalancer, PortForward, PublicAddress, RouterConfig, StaticNat

SAME = PortForward("a", "203.0.113.10", "tcp", 8000, 8010, "10.1.1.5", 8000, 8010)
OTHER = PortForward("b", "203.0.113.10", "udp", 53, 54, "10.1.1.6", 5353, 5354)
BASE = RouterConfig(
    network="n",
    generation=1,
    guest_ip="10.1.1.1",
    guest_prefix=24,
    domain="x",
    public=(PublicAddress("203.0.113.10", 24, "203.0.113.1", source_nat=True),),
    port_forwards=(SAME, OTHER),
)


def rules_of(**changes: object) -> Ruleset:
    return ruleset(msgspec.structs.replace(BASE, **changes), guest="eth0", public="eth2")


def test_a_range_that_keeps_its_ports_is_one_element() -> None:
    elements = rules_of().elements()
    assert elements[KEPT] == {"8000-8010 . 203.0.113.10 . tcp : 10.1.1.5"}


def test_a_range_with_other_ports_is_an_element_a_port() -> None:
    elements = rules_of().elements()
    assert elements[SHIFTED] == {
        "53 . 203.0.113.10 . udp : 10.1.1.6 . 5353",
        "54 . 203.0.113.10 . udp : 10.1.1.6 . 5354",
    }


def test_two_forwards_to_the_same_ports_of_a_guest_let_through_their_union() -> None:
    second = msgspec.structs.replace(SAME, id="c", public_start=9005, public_end=9015, guest_start=8005, guest_end=8015)
    elements = rules_of(port_forwards=(SAME, second)).elements()
    assert elements[FORWARDED] == {"10.1.1.5 . 8000-8015 . 203.0.113.10 . tcp"}


def test_equal_configs_differ_in_nothing() -> None:
    assert delta(rules_of(), rules_of(generation=2)) == Delta({}, {})


def test_one_more_forward_is_as_little_work_whatever_their_number() -> None:
    many = tuple(
        PortForward(f"m{port}", "203.0.113.10", "tcp", port, port, "10.1.1.7", port, port) for port in range(1, 4000, 2)
    )
    changes = delta(rules_of(port_forwards=many), rules_of(port_forwards=(*many, SAME)))
    entry = frozenset({"8000-8010 . 203.0.113.10 . tcp"})
    assert changes.gone == {}
    assert changes.come == {
        FORWARDED: {"10.1.1.5 . 8000-8010 . 203.0.113.10 . tcp"},
        KEPT: {"8000-8010 . 203.0.113.10 . tcp : 10.1.1.5"},
        ENTERED: entry,
        ANSWERED: entry,
    }


def test_one_more_firewall_rule_is_as_little_work_whatever_their_number() -> None:
    many = tuple(FirewallRule(f"m{port}", "203.0.113.10", "tcp", port, port) for port in range(1, 3000))
    one = FirewallRule("x", "203.0.113.10", "tcp", 5000, 5010, cidrs=("198.51.100.0/24",))
    before = firewalled(many)
    after = firewalled((*many, one), before)
    mark = f"{after.admission.marks['x']:#010x}"
    element = f"5000-5010 . 198.51.100.0/24 . 203.0.113.10 . tcp : {mark}"
    expected = {FIREWALL[int(mark[-1], 16) % 8]: {element}, LET_IN: {mark}, LET_OUT: {mark}}
    assert delta(before, after) == Delta({}, expected)
    assert delta(after, firewalled(many, after)) == Delta(expected, {})


def firewalled(firewall: tuple[FirewallRule, ...], before: Ruleset | None = None) -> Ruleset:
    config = msgspec.structs.replace(BASE, services=(*BASE.services, "firewall"), firewall=firewall)
    return ruleset(config, guest="eth0", public="eth2", before=before)


def test_without_the_service_rules_let_nothing_in_and_keep_nothing_out() -> None:
    rules = rules_of(firewall=(FirewallRule("x", "203.0.113.10", "tcp", 1, 2),))
    assert not any(rules.elements()[name] for name in FIREWALL)
    assert "jump admitted" not in rules.chains
    assert "jump admitted" in firewalled(()).chains


def test_a_static_nat_leads_both_ways() -> None:
    elements = rules_of(static_nats=(StaticNat("203.0.113.11", "10.1.1.6"),)).elements()
    assert elements[STATIC] == {"203.0.113.11 : 10.1.1.6"}
    assert elements[LEAVING] == {"10.1.1.6 : 203.0.113.11"}
    assert elements[OWNED] == {"203.0.113.11 . 10.1.1.6"}


def test_a_balancer_is_a_door() -> None:
    elements = rules_of(load_balancers=(LoadBalancer("l", "203.0.113.10", 443, 8443, "source"),)).elements()
    assert elements[BALANCED] == {"203.0.113.10 . 443"}


def test_a_forward_to_another_guest_goes_before_it_comes() -> None:
    moved = msgspec.structs.replace(SAME, guest_ip="10.1.1.9")
    changes = delta(rules_of(), rules_of(port_forwards=(moved, OTHER)))
    assert changes.gone[KEPT] == {"8000-8010 . 203.0.113.10 . tcp : 10.1.1.5"}
    assert changes.come[KEPT] == {"8000-8010 . 203.0.113.10 . tcp : 10.1.1.9"}


def test_another_shape_of_the_network_flushes_chains_and_touches_no_element_that_stays() -> None:
    commands = reshaped(rules_of(), rules_of(services=("dhcp",), port_forwards=(SAME,)))
    lines = commands.splitlines()
    assert lines[: len(CHAINS)] == [f"flush chain ip pileus {name}" for name in CHAINS]
    assert "delete element ip pileus shifted { 53 . 203.0.113.10 . udp, 54 . 203.0.113.10 . udp }" in lines
    assert "elements" not in commands
    assert not any("8000" in line for line in lines)


def test_counts_go_on_where_a_table_is_made_anew() -> None:
    commands = whole(rules_of(), {ENTERED: {"53-54 . 203.0.113.10 . udp": 77}})
    assert "53-54 . 203.0.113.10 . udp counter packets 0 bytes 77" in commands
    assert commands.startswith("add table ip pileus\ndelete table ip pileus\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (FIREWALL[0], "80-90 . 10.0.0.0/8 . 203.0.113.10 . tcp"),
        (FIREWALL[0], "2048 . 0.0.0.0/0 . 203.0.113.10 . icmp"),
        (FORWARDED, "10.1.1.5 . 53 . 203.0.113.10 . udp"),
        (LET_IN, "0x000000ff"),
        (BALANCED, "203.0.113.10 . 443"),
    ],
)
def test_keys_are_the_same_after_a_way_through_the_kernels_form(name: str, text: str) -> None:
    start, end, value = packed(SETS[name], text)
    assert unpacked(SETS[name], start, end) == text
    assert len(start) == len(end) == 4 * len(SETS[name].key)
    assert value == b""


def test_values_are_packed_behind_keys() -> None:
    start, _, value = packed(SETS[SHIFTED], "53 . 203.0.113.10 . udp : 10.1.1.6 . 5353")
    assert start == bytes([0, 53, 0, 0, 203, 0, 113, 10, 17, 0, 0, 0])
    assert value == bytes([10, 1, 1, 6, 5353 >> 8, 5353 & 0xFF, 0, 0])


@pytest.mark.parametrize(
    ("service", "rule"),
    [
        ("dhcp", "udp dport 67 accept"),
        ("dns", "th dport 53 accept"),
        ("user-data", "tcp dport 80 accept"),
        ("password", "tcp dport 8080 accept"),
        ("gateway", 'oifname "eth2" ip saddr 10.1.1.0/24 ip daddr != 169.254.0.0/16 accept'),
        ("source-nat", "snat to 203.0.113.10"),
    ],
)
def test_a_service_that_is_not_offered_has_no_rule(service: str, rule: str) -> None:
    others = tuple(one for one in BASE.services if one != service)
    assert rule in rules_of().chains
    assert rule not in rules_of(services=others).chains
