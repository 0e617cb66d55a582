"""Static NAT and its rules through the API."""

import pytest
from router_rules import Site, settled

from pileus.server.db.queries import nic as nics
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.vm import vm
from pileus.testing import World
from pileus.testing.client import Client, Refused
from pileus.wire.router import StaticNat


@pytest.fixture
def site(world: World) -> Site:
    return settled(world)


def enabled(site: Site, guest: str | None = None) -> None:
    site.client.call("enableStaticNat", ipaddressid=site.extra, virtualmachineid=guest or site.web)
    site.world.settle()


def test_an_address_belongs_to_one_guest_whole_until_it_is_given_back(site: Site) -> None:
    enabled(site)
    enabled(site)
    assert site.config.static_nats == (StaticNat(site.extra_ip, "10.1.1.2"),)
    (told,) = site.config.guests
    assert told.metadata["public-ipv4"] == site.extra_ip
    (shown,) = site.client.call("listPublicIpAddresses", id=site.extra)["publicipaddress"]
    assert (shown["isstaticnat"], shown["virtualmachineid"]) == (True, site.web)
    rule = site.done("createIpForwardingRule", ipaddressid=site.extra, protocol="tcp", startport=22, endport=23)
    assert (rule["publicport"], rule["publicendport"], rule["virtualmachineid"]) == ("22", "23", site.web)
    (opened,) = site.config.firewall
    assert (opened.ip, opened.start, opened.end) == (site.extra_ip, 22, 23)
    (listed,) = site.client.call("listIpForwardingRules", virtualmachineid=site.web)["ipforwardingrule"]
    assert listed["id"] == rule["id"]
    assert site.client.call("listPortForwardingRules") == {}
    site.done("disableStaticNat", ipaddressid=site.extra)
    assert (site.config.static_nats, site.config.firewall) == ((), ())
    assert site.client.call("listIpForwardingRules") == {}
    (shown,) = site.client.call("listPublicIpAddresses", id=site.extra)["publicipaddress"]
    assert shown["isstaticnat"] is False
    assert "virtualmachineid" not in shown
    site.done(
        "createPortForwardingRule", ipaddressid=site.extra, virtualmachineid=site.web, protocol="tcp",
        publicport=80, privateport=80,
    )  # fmt: skip
    site.world.assert_nothing_left()


def test_what_static_nat_excludes_is_refused(site: Site) -> None:
    at = {"ipaddressid": site.extra}
    forward = {"virtualmachineid": site.web, "protocol": "tcp", "publicport": 80, "privateport": 80, **at}
    assert site.code("enableStaticNat", ipaddressid=site.source, virtualmachineid=site.web) == 431
    assert site.code("createIpForwardingRule", protocol="tcp", startport=22, **at) == 431
    assert site.code("disableStaticNat", **at) == 431
    rule = site.done("createPortForwardingRule", **forward)
    assert site.code("enableStaticNat", virtualmachineid=site.web, **at) == 431
    site.done("deletePortForwardingRule", id=rule["id"])
    enabled(site)
    assert site.code("createPortForwardingRule", **forward) == 431
    assert site.code("enableStaticNat", virtualmachineid=site.guest("other"), **at) == 431
    more = site.client.call("associateIpAddress", zoneid=site.cloud.zone)
    site.world.result(more["jobid"])
    assert site.code("enableStaticNat", ipaddressid=more["id"], virtualmachineid=site.web) == 536
    for wishes in ({"protocol": "icmp", "startport": 1}, {"protocol": "tcp", "startport": 0}):
        assert site.code("createIpForwardingRule", **wishes, **at) == 431
    site.done("createIpForwardingRule", protocol="tcp", startport=22, endport=30, **at)
    assert site.code("createIpForwardingRule", protocol="tcp", startport=30, **at) == 537


def test_while_it_is_being_disabled_nothing_else_begins(site: Site) -> None:
    enabled(site)
    job = site.client.call("disableStaticNat", ipaddressid=site.extra)["jobid"]
    assert site.code("disableStaticNat", ipaddressid=site.extra) == 536
    assert site.code("enableStaticNat", ipaddressid=site.extra, virtualmachineid=site.guest("other")) == 431
    assert site.code("createIpForwardingRule", ipaddressid=site.extra, protocol="tcp", startport=22) == 431
    site.world.result(job)
    enabled(site)


def test_it_ends_with_its_guest(site: Site) -> None:
    enabled(site)
    site.done("createIpForwardingRule", ipaddressid=site.extra, protocol="tcp", startport=22)
    with site.world.db.write() as tx:
        nics.release_all(tx, int(tx.scalar(vm.select().with_only_columns(vm.c.id).where(vm.c.uuid == site.web))))
    site.world.reconcile("network-config")
    site.world.settle()
    assert (site.config.static_nats, site.config.firewall) == ((), ())
    assert site.client.call("listIpForwardingRules") == {}
    enabled(site, site.guest("next"))


def test_nobody_maps_addresses_or_guests_of_others(site: Site) -> None:
    enabled(site)
    rule = site.done("createIpForwardingRule", ipaddressid=site.extra, protocol="tcp", startport=22)["id"]
    others = Client(site.world.db, site.world.account())
    for command, sent in (
        ("enableStaticNat", {"ipaddressid": site.extra, "virtualmachineid": site.web}),
        ("disableStaticNat", {"ipaddressid": site.extra}),
        ("createIpForwardingRule", {"ipaddressid": site.extra, "protocol": "tcp", "startport": 23}),
        ("deleteIpForwardingRule", {"id": rule}),
        ("listIpForwardingRules", {"id": rule}),
    ):
        with pytest.raises(Refused) as refused:
            others.call(command, **sent)
        assert refused.value.code == 531, command


def test_a_guest_is_told_the_name_of_its_new_offering(site: Site) -> None:
    large = site.world.offering("large")
    site.client.call(
        "changeServiceForVirtualMachine", id=site.web, serviceofferingid=site.world.uuid(service_offering, large)
    )
    site.world.settle()
    (told,) = site.config.guests
    assert told.metadata["service-offering"] == "large"
