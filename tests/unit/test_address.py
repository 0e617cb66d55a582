"""Addresses, networks and VLAN ranges as the API takes them."""

from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Any

import pytest

from pileus.server.domain.address import Range, address, cidr, range_in, subnet, vlan_range
from pileus.server.domain.dns_name import dns_domain
from pileus.server.domain.errors import ParameterError

NETWORK = IPv4Network("10.0.0.0/24")


def test_networks_are_read() -> None:
    assert cidr("10.1.0.0/16", "cidr") == IPv4Network("10.1.0.0/16")
    assert cidr("10.0.0.0/255.0.0.0", "cidr") == IPv4Network("10.0.0.0/8")
    assert subnet("10.0.0.1", "255.255.255.0") == NETWORK
    assert subnet("10.0.0.1", "255.255.255.252") == IPv4Network("10.0.0.0/30")


def test_ranges_are_read() -> None:
    found = range_in(NETWORK, "10.0.0.1", "10.0.0.254")
    assert (len(found), str(next(iter(found))), address("10.0.0.7", "x") in found) == (254, "10.0.0.1", True)
    assert len(range_in(NETWORK, "10.0.0.9", None)) == 1
    apart = Range(address("10.0.1.0", "x"), address("10.0.1.9", "x"))
    assert not found.overlaps(apart)
    assert found.overlaps(Range(address("10.0.0.254", "x"), address("10.0.1.0", "x")))
    assert vlan_range("500-1999", highest=4094) == (500, 1999)
    assert vlan_range("7", highest=4094) == (7, 7)
    assert vlan_range(" 1 - 4094 ", highest=4094) == (1, 4094)


@pytest.mark.parametrize(
    ("read", "parameter"),
    [
        (lambda: address("10.0.0.256", "gateway"), "gateway"),
        (lambda: address("10.0.0.01", "gateway"), "gateway"),
        (lambda: address("::1", "gateway"), "gateway"),
        (lambda: address("", "gateway"), "gateway"),
        (lambda: cidr("10.0.0.0", "cidr"), "cidr"),
        (lambda: cidr("10.0.0.1/24", "cidr"), "cidr"),
        (lambda: cidr("0.0.0.0/0", "cidr"), "cidr"),
        (lambda: cidr("10.0.0.0/31", "cidr"), "cidr"),
        (lambda: subnet("10.0.0.1", "0.0.0.255"), "netmask"),
        (lambda: subnet("10.0.0.1", "255.0.255.0"), "netmask"),
        (lambda: subnet("10.0.0.1", "24"), "netmask"),
        (lambda: subnet("10.0.0.1", "255.255.255.255"), "netmask"),
        (lambda: subnet("10.0.0.0", "255.255.255.0"), "gateway"),
        (lambda: subnet("10.0.0.255", "255.255.255.0"), "gateway"),
        (lambda: range_in(NETWORK, "10.0.0.9", "10.0.0.8"), "endip"),
        (lambda: range_in(NETWORK, "10.0.1.1", None), "startip"),
        (lambda: range_in(NETWORK, "10.0.0.1", "10.0.1.1"), "endip"),
        (lambda: range_in(NETWORK, "10.0.0.0", None), "startip"),
        (lambda: range_in(NETWORK, "10.0.0.1", "10.0.0.255"), "startip"),
        (lambda: range_in(IPv4Network("10.0.0.0/8"), "10.0.0.1", "10.2.0.0"), "endip"),
        (lambda: vlan_range("0-1", highest=4094), "vlan"),
        (lambda: vlan_range("4095", highest=4094), "vlan"),
        (lambda: vlan_range("9-8", highest=4094), "vlan"),
        (lambda: vlan_range("1-2-3", highest=4094), "vlan"),
        (lambda: vlan_range("-1", highest=4094), "vlan"),
        (lambda: vlan_range("²", highest=4094), "vlan"),
        (lambda: vlan_range("٣", highest=4094), "vlan"),
        (lambda: vlan_range("9" * 5000, highest=4094), "vlan"),
        (lambda: dns_domain("-a.org", "domain"), "domain"),
        (lambda: dns_domain("a..b", "domain"), "domain"),
        (lambda: dns_domain("a_b", "domain"), "domain"),
        (lambda: dns_domain("a.b\n", "domain"), "domain"),
        (lambda: dns_domain("a" * 64, "domain"), "domain"),
        (lambda: dns_domain(".".join(["abcdefghi"] * 20), "domain"), "domain"),
    ],
)
def test_what_is_wrong_is_refused_by_the_name_of_its_parameter(read: Callable[[], Any], parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        read()
    assert caught.value.parameter == parameter


def test_domains_are_lower_case() -> None:
    assert dns_domain("Cloud.Example.ORG", "domain") == "cloud.example.org"
