"""Which addresses images may come from."""

import ipaddress

import pytest

from pileus.appliance.storage import addresses
from pileus.wire.operations import Reason, Refused

FORBIDDEN = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:5ef5:79fd:0:59d:80ff:fffe",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_internal_addresses_are_refused_in_every_spelling(address: str) -> None:
    assert not addresses.permitted(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_public_addresses_are_permitted(address: str) -> None:
    assert addresses.permitted(ipaddress.ip_address(address), ())


def test_an_allowed_network_permits_its_addresses_and_no_others() -> None:
    allowed = addresses.networks(["10.1.0.0/16", " 127.0.0.1 ", "", "fd00::/8"])
    assert addresses.permitted(ipaddress.ip_address("10.1.2.3"), allowed)
    assert addresses.permitted(ipaddress.ip_address("127.0.0.1"), allowed)
    assert addresses.permitted(ipaddress.ip_address("::ffff:10.1.2.3"), allowed)
    assert addresses.permitted(ipaddress.ip_address("fd00::7"), allowed)
    assert not addresses.permitted(ipaddress.ip_address("10.2.0.1"), allowed)
    assert not addresses.permitted(ipaddress.ip_address("127.0.0.2"), allowed)


def test_a_wrong_list_of_allowed_networks_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        addresses.networks(["10.0.0.0/33"])
    assert caught.value.reason is Reason.REJECTED


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1"])
def test_names_and_odd_numbers_of_loopback_are_resolved_before_they_are_judged(host: str) -> None:
    with pytest.raises(Refused) as caught:
        addresses.checked(host, 80, ())
    assert caught.value.reason is Reason.REJECTED


def test_a_permitted_host_is_answered_with_numbers() -> None:
    assert addresses.checked("127.0.0.1", 80, addresses.networks(["127.0.0.0/8"])) == ["127.0.0.1"]


def test_a_name_without_an_address_is_unreachable() -> None:
    with pytest.raises(Refused) as caught:
        addresses.checked("no-such-name.invalid", 80, ())
    assert caught.value.reason is Reason.UNREACHABLE
