"""Firewall rules through the API, and what other rules open."""

import pytest
from router_rules import Site, settled

from pileus.server.db.tables.event import event
from pileus.testing import World
from pileus.testing.client import Client, Refused, counted_statements
from pileus.wire.router import FirewallRule


@pytest.fixture
def site(world: World) -> Site:
    return settled(world)


def test_a_rule_is_on_the_router_when_its_job_is_done(site: Site) -> None:
    shown = site.done(
        "createFirewallRule", ipaddressid=site.extra, protocol="TCP", startport=80, endport=89,
        cidrlist="198.51.100.0/24,192.0.2.0/24",
    )  # fmt: skip
    assert shown == {
        "id": shown["id"],
        "protocol": "tcp",
        "startport": "80",
        "endport": "89",
        "ipaddressid": site.extra,
        "ipaddress": site.extra_ip,
        "cidrlist": "192.0.2.0/24,198.51.100.0/24",
        "state": "Active",
    }
    assert "firewall" in site.config.services
    assert site.config.firewall == (
        FirewallRule(shown["id"], site.extra_ip, "tcp", 80, 89, cidrs=("192.0.2.0/24", "198.51.100.0/24")),
    )
    pinged = site.done("createFirewallRule", ipaddressid=site.extra, protocol="icmp", icmptype=8, icmpcode=-1)
    assert (pinged["icmptype"], pinged.get("icmpcode")) == (8, None)
    (ping,) = (rule for rule in site.config.firewall if rule.protocol == "icmp")
    assert (ping.icmp_type, ping.icmp_code, ping.cidrs) == (8, -1, ("0.0.0.0/0",))
    site.done("deleteFirewallRule", id=shown["id"])
    assert [rule.id for rule in site.config.firewall] == [pinged["id"]]
    site.world.assert_nothing_left()
    with site.world.db.read() as tx:
        told = [row["type"] for row in tx.all(event.select().where(event.c.type.like("FIREWALL%")))]
    assert sorted(set(told)) == ["FIREWALL.CLOSE", "FIREWALL.OPEN"]


@pytest.mark.parametrize(
    "wishes",
    [
        {"protocol": "gre", "startport": 1},
        {"protocol": "tcp"},
        {"protocol": "tcp", "startport": 0},
        {"protocol": "udp", "startport": 9, "endport": 8},
        {"protocol": "udp", "startport": 9, "endport": 65536},
        {"protocol": "tcp", "startport": 9, "icmptype": 8},
        {"protocol": "tcp", "startport": 9, "icmpcode": 0},
        {"protocol": "icmp", "startport": 9},
        {"protocol": "icmp", "endport": 9},
        {"protocol": "icmp", "icmptype": 256},
        {"protocol": "icmp", "icmpcode": 1},
        {"protocol": "tcp", "startport": 9, "cidrlist": "192.0.2.1/24"},
        {"protocol": "tcp", "startport": 9, "cidrlist": ",".join(f"192.0.2.{n}" for n in range(101))},
    ],
)
def test_a_rule_that_cannot_be_is_refused_and_leaves_nothing(site: Site, wishes: dict[str, object]) -> None:
    assert site.code("createFirewallRule", ipaddressid=site.extra, **wishes) == 431
    assert site.client.call("listFirewallRules") == {}


def test_what_is_let_in_already_is_a_conflict(site: Site) -> None:
    at = {"ipaddressid": site.extra, "protocol": "tcp"}
    site.done("createFirewallRule", startport=80, endport=89, cidrlist="192.0.2.0/25", **at)
    assert site.code("createFirewallRule", startport=85, endport=99, cidrlist="192.0.2.64/26", **at) == 537
    assert site.code("createFirewallRule", startport=89, **at) == 537
    site.done("createFirewallRule", startport=85, endport=99, cidrlist="192.0.2.128/25", **at)
    site.done("createFirewallRule", startport=80, ipaddressid=site.extra, protocol="udp")
    site.done("createFirewallRule", startport=80, ipaddressid=site.source, protocol="tcp")
    site.done("createFirewallRule", ipaddressid=site.extra, protocol="icmp", icmptype=8)
    assert site.code("createFirewallRule", ipaddressid=site.extra, protocol="icmp") == 537
    site.done("createFirewallRule", ipaddressid=site.extra, protocol="icmp", icmptype=3)


def test_a_rule_opens_the_firewall_for_itself_as_long_as_it_is_there(site: Site) -> None:
    order = {"ipaddressid": site.extra, "virtualmachineid": site.web, "protocol": "tcp", "privateport": 80}
    shown = site.done("createPortForwardingRule", publicport=8080, cidrlist="192.0.2.0/24", **order)
    assert shown["cidrlist"] == "192.0.2.0/24"
    shut = site.done("createPortForwardingRule", publicport=8081, openfirewall=False, **order)
    assert "cidrlist" not in shut
    (opened,) = site.config.firewall
    assert (opened.start, opened.end, opened.cidrs) == (8080, 8080, ("192.0.2.0/24",))
    (listed,) = site.client.call("listFirewallRules", ipaddressid=site.extra)["firewallrule"]
    assert (listed["id"], listed["state"]) == (opened.id, "Active")
    # What a rule opened does not stand in the way of a wider opening.
    wider = site.done("createFirewallRule", ipaddressid=site.extra, protocol="tcp", startport=8000, endport=9000)
    site.done("deletePortForwardingRule", id=shown["id"])
    assert [rule.id for rule in site.config.firewall] == [wider["id"]]
    assert len(site.config.port_forwards) == 1


def test_rules_go_with_their_address(site: Site) -> None:
    site.done("createFirewallRule", ipaddressid=site.extra, protocol="tcp", startport=80)
    site.done("disassociateIpAddress", id=site.extra)
    assert site.config.firewall == ()
    assert site.client.call("listFirewallRules") == {}


def test_nobody_opens_or_sees_what_is_not_theirs(site: Site) -> None:
    rule = site.done("createFirewallRule", ipaddressid=site.extra, protocol="tcp", startport=80)["id"]
    others = Client(site.world.db, site.world.account())
    for command, sent in (
        ("createFirewallRule", {"ipaddressid": site.extra, "protocol": "tcp", "startport": 22}),
        ("deleteFirewallRule", {"id": rule}),
        ("listFirewallRules", {"id": rule}),
    ):
        with pytest.raises(Refused) as refused:
            others.call(command, **sent)
        assert refused.value.code == 531, command
    assert others.call("listFirewallRules") == {}


def test_a_page_costs_the_same_however_many_rules(site: Site) -> None:
    at = {"ipaddressid": site.extra, "protocol": "tcp"}
    site.done("createFirewallRule", startport=80, **at)
    site.client.call("listFirewallRules")
    with counted_statements(site.world.db) as few:
        site.client.call("listFirewallRules")
    for port in (81, 82, 83):
        site.done("createFirewallRule", startport=port, **at)
    with counted_statements(site.world.db) as many:
        assert site.client.call("listFirewallRules")["count"] == 4
    assert len(many) == len(few)
    assert site.client.call("listFirewallRules", keyword="udp") == {}
