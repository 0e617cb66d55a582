"""Packet filter and NAT rules of a config, as text."""

import msgspec
import pytest

from pileus.appliance.router.rules import FORWARDED, KEPT, SHIFTED, Ruleset, change, ruleset, whole
from pileus.wire.router import PortForward, PublicAddress, RouterConfig

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
    elements = rules_of().elements
    assert elements[KEPT] == {"203.0.113.10 . tcp . 8000-8010 : 10.1.1.5"}


def test_a_range_with_other_ports_is_an_element_a_port() -> None:
    elements = rules_of().elements
    assert elements[SHIFTED] == {
        "203.0.113.10 . udp . 53 : 10.1.1.6 . 5353",
        "203.0.113.10 . udp . 54 : 10.1.1.6 . 5354",
    }


def test_two_forwards_to_the_same_ports_of_a_guest_let_through_their_union() -> None:
    second = msgspec.structs.replace(SAME, id="c", public_start=9005, public_end=9015, guest_start=8005, guest_end=8015)
    elements = rules_of(port_forwards=(SAME, second)).elements
    assert elements[FORWARDED] == {"203.0.113.10 . tcp . 10.1.1.5 . 8000-8015"}


def test_equal_configs_need_no_commands() -> None:
    assert change(rules_of(), rules_of(generation=2)) == ""


def test_one_more_forward_is_as_little_work_whatever_their_number() -> None:
    many = tuple(
        PortForward(f"m{port}", "203.0.113.10", "tcp", port, port, "10.1.1.7", port, port) for port in range(1, 4000, 2)
    )
    commands = change(rules_of(port_forwards=many), rules_of(port_forwards=(*many, SAME)))
    assert sorted(commands.splitlines()) == [
        "add element ip pileus forwarded { 203.0.113.10 . tcp . 10.1.1.5 . 8000-8010 }",
        "add element ip pileus kept { 203.0.113.10 . tcp . 8000-8010 : 10.1.1.5 }",
    ]


def test_a_forward_to_another_guest_goes_before_it_comes() -> None:
    moved = msgspec.structs.replace(SAME, guest_ip="10.1.1.9")
    lines = change(rules_of(), rules_of(port_forwards=(moved, OTHER))).splitlines()
    assert "delete element ip pileus kept { 203.0.113.10 . tcp . 8000-8010 }" in lines
    verbs = [line.split()[0] for line in lines]
    assert verbs == sorted(verbs, reverse=True)


def test_another_shape_of_the_network_replaces_the_whole_table() -> None:
    new = rules_of(services=("dhcp",))
    assert change(rules_of(), new) == whole(new)
    assert whole(new).startswith("add table ip pileus\ndelete table ip pileus\n")


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
