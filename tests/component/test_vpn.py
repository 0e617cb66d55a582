"""Remote access and its users through the API."""

from typing import Any

import pytest
from router_rules import Site, settled

from pileus.server.db.tables.vpn import vpn_user
from pileus.testing import World
from pileus.testing.client import Client, Refused, counted_statements
from pileus.wire.router import RemoteAccessVpn, VpnUser


@pytest.fixture
def site(world: World) -> Site:
    """A network whose router is a virtual machine."""
    cloud = world.cloud()
    admin = Client(world.db)
    admin.call("updateConfiguration", name="router.template.id", value=world.template(cloud.zone, is_public=0))
    admin.call("updateZone", id=cloud.zone, **{"details[0].router.launcher": "vm"})
    return settled(world, cloud)


def made(site: Site, **wishes: Any) -> Any:
    return site.done("createRemoteAccessVpn", publicipid=site.extra, **wishes)


def test_users_come_in_as_long_as_there_is_a_vpn(site: Site) -> None:
    site.done("addVpnUser", username="alice", password="first-password")
    shown = made(site)
    assert (shown["publicip"], shown["iprange"], shown["state"]) == (site.extra_ip, "10.1.2.2-10.1.2.8", "Active")
    assert len(shown["presharedkey"]) == 24
    assert "vpn" in site.config.services
    assert site.config.vpn == RemoteAccessVpn(
        site.extra_ip,
        shown["presharedkey"],
        local_ip="10.1.2.1",
        first_ip="10.1.2.2",
        last_ip="10.1.2.8",
        users=(VpnUser("alice", "first-password"),),
    )
    assert {(rule.protocol, rule.start) for rule in site.config.firewall} == {
        ("udp", 500),
        ("udp", 1701),
        ("udp", 4500),
    }
    bob = site.done("addVpnUser", username="bob", password="second.password")
    assert (bob["username"], bob["state"]) == ("bob", "Active")
    assert "password" not in bob
    assert [user.name for user in site.config.vpn.users] == ["alice", "bob"]
    site.done("removeVpnUser", username="alice")
    assert [user.name for user in site.config.vpn.users] == ["bob"]
    site.done("deleteRemoteAccessVpn", publicipid=site.extra)
    assert (site.config.vpn, site.config.firewall, "vpn" in site.config.services) == (None, (), False)
    assert site.client.call("listRemoteAccessVpns") == {}
    assert [one["username"] for one in site.client.call("listVpnUsers")["vpnuser"]] == ["bob"]
    made(site, iprange="192.168.77.1-192.168.77.9", openfirewall=False)
    assert (site.config.vpn.first_ip, site.config.firewall) == ("192.168.77.2", ())
    site.world.assert_nothing_left()


@pytest.mark.parametrize(
    "iprange",
    ["10.1.2.1", "10.1.2.8-10.1.2.1", "10.1.2.1-10.1.2.1", "10.1.0.1-10.1.1.5", "10.1.2.1-10.1.4.1", "8.8.8.1-8.8.8.9"],
)
def test_a_range_that_cannot_be_is_refused_and_leaves_nothing(site: Site, iprange: str) -> None:
    assert site.code("createRemoteAccessVpn", publicipid=site.extra, iprange=iprange) == 431
    assert site.client.call("listRemoteAccessVpns") == {}


def test_one_vpn_a_network_and_its_ports_are_taken(site: Site) -> None:
    order = {"virtualmachineid": site.web, "protocol": "udp", "publicport": 4500, "privateport": 4500}
    rule = site.done("createPortForwardingRule", ipaddressid=site.extra, **order)
    assert site.code("createRemoteAccessVpn", publicipid=site.extra) == 537
    site.done("deletePortForwardingRule", id=rule["id"])
    assert site.code("deleteRemoteAccessVpn", publicipid=site.extra) == 431
    made(site)
    assert site.code("createRemoteAccessVpn", publicipid=site.source) == 536
    assert site.code("createPortForwardingRule", ipaddressid=site.extra, **order) == 537
    assert site.code("enableStaticNat", ipaddressid=site.extra, virtualmachineid=site.web) == 431
    site.done("disassociateIpAddress", id=site.extra)
    assert site.config.vpn is None


def test_a_router_in_a_namespace_cannot(world: World) -> None:
    site = settled(world)
    assert site.code("createRemoteAccessVpn", publicipid=site.extra) == 534
    site.done("addVpnUser", username="alice", password="a-password")


@pytest.mark.parametrize(
    "wishes",
    [
        {"username": "al"},
        {"username": "1alice"},
        {"username": "alice smith"},
        {"username": "alice"},
        {"password": "pw"},
        {"password": 'quo"ted'},
        {"password": "p" * 33},
    ],
)
def test_a_user_that_cannot_be_is_refused_and_leaves_nothing(site: Site, wishes: dict[str, str]) -> None:
    site.done("addVpnUser", username="alice", password="a-password")
    assert site.code("addVpnUser", **{"username": "other", "password": "a-password", **wishes}) == 431
    assert site.client.call("listVpnUsers")["count"] == 1
    assert site.code("removeVpnUser", username="nobody") == 431


def test_an_account_has_as_many_users_as_the_setting_says(site: Site) -> None:
    Client(site.world.db).call("updateConfiguration", name="remote.access.vpn.user.limit", value=1)
    site.done("addVpnUser", username="alice", password="a-password")
    assert site.code("addVpnUser", username="bob", password="a-password") == 535
    site.done("removeVpnUser", username="alice")
    site.done("addVpnUser", username="bob", password="a-password")


def test_nobody_sees_or_opens_what_is_not_theirs(site: Site) -> None:
    vpn, user = made(site)["id"], site.done("addVpnUser", username="alice", password="a-password")["id"]
    others = Client(site.world.db, site.world.account())
    for command, sent in (
        ("createRemoteAccessVpn", {"publicipid": site.source}),
        ("deleteRemoteAccessVpn", {"publicipid": site.extra}),
        ("listRemoteAccessVpns", {"id": vpn}),
        ("listVpnUsers", {"id": user}),
    ):
        with pytest.raises(Refused) as refused:
            others.call(command, **sent)
        assert refused.value.code == 531, command
    assert others.call("listVpnUsers") == {}


def test_users_go_with_their_account_and_so_do_their_passwords(site: Site) -> None:
    site.done("addVpnUser", username="alice", password="a-password")
    admin = Client(site.world.db)
    account = admin.call("listAccounts", name=site.user.account_name, listall=True)["account"][0]["id"]
    job = admin.call("deleteAccount", id=account)["jobid"]
    site.world.result(job)
    with site.world.db.read() as tx:
        assert [(row["live"], row["password"]) for row in tx.all(vpn_user.select())] == [(None, "")]


def test_a_page_costs_the_same_however_many_users(site: Site) -> None:
    site.done("addVpnUser", username="user0", password="a-password")
    site.client.call("listVpnUsers")
    with counted_statements(site.world.db) as few:
        site.client.call("listVpnUsers")
    for number in (1, 2, 3):
        site.done("addVpnUser", username=f"user{number}", password="a-password")
    with counted_statements(site.world.db) as many:
        assert site.client.call("listVpnUsers")["count"] == 4
    assert len(many) == len(few)
    assert site.client.call("listVpnUsers", username="user2")["count"] == 1
    assert site.client.call("listVpnUsers", keyword="user")["count"] == 4
