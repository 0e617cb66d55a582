"""Load balancer rules through the API."""

from typing import Any

import pytest
from router_rules import Site, settled

from pileus.server.db.queries import nic as nics
from pileus.server.db.tables.vm import vm
from pileus.testing import World
from pileus.testing.client import Client, Refused, counted_statements
from pileus.wire.router import LoadBalancer

ORDER = {"name": "web", "algorithm": "roundrobin", "publicport": 80, "privateport": 8080}


@pytest.fixture
def site(world: World) -> Site:
    return settled(world)


def made(site: Site, **wishes: Any) -> Any:
    return site.done("createLoadBalancerRule", **{**ORDER, "publicipid": site.extra, **wishes})


def members(site: Site, rule: str, *, applied: bool = True) -> set[str]:
    told = site.client.call("listLoadBalancerRuleInstances", id=rule, applied=applied)
    return {one["id"] for one in told.get("loadbalancerruleinstance", [])}


def test_guests_come_and_go_while_the_rule_is_there(site: Site) -> None:
    rule = made(site, description="the shop", cidrlist="192.0.2.0/24")
    assert {name: rule[name] for name in ("name", "description", "publicip", "publicport", "algorithm", "state")} == {
        "name": "web",
        "description": "the shop",
        "publicip": site.extra_ip,
        "publicport": "80",
        "algorithm": "roundrobin",
        "state": "Active",
    }
    assert (rule["privateport"], rule["cidrlist"]) == ("8080", "192.0.2.0/24")
    assert site.config.load_balancers == (LoadBalancer(rule["id"], site.extra_ip, 80, 8080, "roundrobin"),)
    other = site.guest("other")
    site.done("assignToLoadBalancerRule", id=rule["id"], virtualmachineids=f"{site.web},{other}")
    (balancer,) = site.config.load_balancers
    assert balancer.members == ("10.1.1.2", "10.1.1.3")
    assert members(site, rule["id"]) == {site.web, other}
    assert members(site, rule["id"], applied=False) == set()
    site.done("removeFromLoadBalancerRule", id=rule["id"], virtualmachineids=site.web)
    (balancer,) = site.config.load_balancers
    assert balancer.members == ("10.1.1.3",)
    assert (members(site, rule["id"]), members(site, rule["id"], applied=False)) == ({other}, {site.web})
    changed = site.done("updateLoadBalancerRule", id=rule["id"], algorithm="source", name="shop", description="")
    assert (changed["name"], changed["algorithm"]) == ("shop", "source")
    assert site.config.load_balancers[0].algorithm == "source"
    site.done("deleteLoadBalancerRule", id=rule["id"])
    assert (site.config.load_balancers, site.config.firewall) == ((), ())
    made(site)
    assert members(site, site.client.call("listLoadBalancerRules")["loadbalancerrule"][0]["id"]) == set()
    site.world.assert_nothing_left()


def test_without_an_address_it_is_at_the_source_nat_one(site: Site) -> None:
    rule = site.done("createLoadBalancerRule", zoneid=site.cloud.zone, **ORDER)
    assert rule["publicipid"] == site.source
    assert site.code("createLoadBalancerRule", **{**ORDER, "name": "next", "publicport": 81}) == 431


@pytest.mark.parametrize(
    ("wishes", "code"),
    [
        ({"algorithm": "fastest"}, 431),
        ({"publicport": 0}, 431),
        ({"privateport": 65536}, 431),
        ({"name": " web"}, 431),
        ({"name": "web", "publicport": 81}, 431),
        ({"name": "another"}, 537),
        ({"name": "another", "publicport": 81, "openfirewall": False, "cidrlist": "192.0.2.0/24"}, 431),
    ],
)
def test_a_rule_that_cannot_be_is_refused_and_leaves_nothing(site: Site, wishes: dict[str, object], code: int) -> None:
    made(site)
    assert site.code("createLoadBalancerRule", **{**ORDER, "publicipid": site.extra, **wishes}) == code
    assert site.client.call("listLoadBalancerRules")["count"] == 1
    forward = {"ipaddressid": site.extra, "virtualmachineid": site.web, "protocol": "tcp", "privateport": 80}
    assert site.code("createPortForwardingRule", publicport=80, **forward) == 537
    assert site.code("enableStaticNat", ipaddressid=site.extra, virtualmachineid=site.web) == 431


def test_who_cannot_take_part_is_refused_and_nobody_comes_half(site: Site) -> None:
    rule = made(site)["id"]
    site.done("assignToLoadBalancerRule", id=rule, virtualmachineids=site.web)
    other = site.guest("other")
    assert site.code("assignToLoadBalancerRule", id=rule, virtualmachineids=f"{other},{site.web}") == 431
    assert members(site, rule) == {site.web}
    assert site.code("removeFromLoadBalancerRule", id=rule, virtualmachineids=f"{site.web},{other}") == 431
    assert members(site, rule) == {site.web}
    assert site.code("assignToLoadBalancerRule", id=rule, virtualmachineids="") in (430, 431)
    job = site.client.call("removeFromLoadBalancerRule", id=rule, virtualmachineids=site.web)["jobid"]
    assert site.code("removeFromLoadBalancerRule", id=rule, virtualmachineids=site.web) == 536
    site.world.result(job)
    job = site.client.call("deleteLoadBalancerRule", id=rule)["jobid"]
    for command in ("deleteLoadBalancerRule", "updateLoadBalancerRule"):
        assert site.code(command, id=rule) == 536
    assert site.code("assignToLoadBalancerRule", id=rule, virtualmachineids=site.web) == 536
    site.world.result(job)


def test_a_guest_that_goes_takes_part_no_more(site: Site) -> None:
    rule = made(site)["id"]
    site.done("assignToLoadBalancerRule", id=rule, virtualmachineids=site.web)
    with site.world.db.write() as tx:
        nics.release_all(tx, int(tx.scalar(vm.select().with_only_columns(vm.c.id).where(vm.c.uuid == site.web))))
    site.world.reconcile("network-config")
    site.world.settle()
    assert site.config.load_balancers[0].members == ()
    assert members(site, rule) == set()


def test_nobody_balances_what_is_not_theirs(site: Site) -> None:
    rule = made(site)["id"]
    others = Client(site.world.db, site.world.account())
    for command, sent in (
        ("createLoadBalancerRule", {**ORDER, "publicipid": site.extra, "publicport": 81}),
        ("updateLoadBalancerRule", {"id": rule, "name": "theirs"}),
        ("deleteLoadBalancerRule", {"id": rule}),
        ("assignToLoadBalancerRule", {"id": rule, "virtualmachineids": site.web}),
        ("removeFromLoadBalancerRule", {"id": rule, "virtualmachineids": site.web}),
        ("listLoadBalancerRules", {"id": rule}),
        ("listLoadBalancerRuleInstances", {"id": rule}),
    ):
        with pytest.raises(Refused) as refused:
            others.call(command, **sent)
        assert refused.value.code == 531, command
    stranger = settled(site.world)
    mine = made(stranger)["id"]
    assert stranger.code("assignToLoadBalancerRule", id=mine, virtualmachineids=site.web) == 531


def test_filters_narrow_the_list_and_a_page_costs_the_same(site: Site) -> None:
    rule = made(site)["id"]
    site.done("assignToLoadBalancerRule", id=rule, virtualmachineids=site.web)
    site.client.call("listLoadBalancerRules")
    with counted_statements(site.world.db) as few:
        site.client.call("listLoadBalancerRules")
    for port in (81, 82, 83):
        made(site, name=f"web{port}", publicport=port)
    with counted_statements(site.world.db) as many:
        assert site.client.call("listLoadBalancerRules")["count"] == 4
    assert len(many) == len(few)
    for wishes, count in (
        ({"name": "web81"}, 1),
        ({"keyword": "web8"}, 3),
        ({"virtualmachineid": site.web}, 1),
        ({"publicipid": site.extra}, 4),
        ({"zoneid": site.cloud.zone}, 4),
        ({"name": "none"}, None),
    ):
        assert site.client.call("listLoadBalancerRules", **wishes).get("count") == count, wishes
