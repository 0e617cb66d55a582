"""Networks: created, listed, chosen for guests, deleted, collected; through services and the API."""

import pytest
from network_setup import direct, key_of, offering
from sqlalchemy import select, update

from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.seed import VIRTUAL_NETWORK_OFFERING
from pileus.server.db.tables.event import event
from pileus.server.db.tables.network import network
from pileus.server.db.tables.offering import network_offering
from pileus.server.db.tables.place import zone
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import InsufficientCapacity, ParameterError, PermissionDenied
from pileus.server.domain.network import NetworkState
from pileus.server.services.network import for_deploy
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client, Refused, counted_statements
from pileus.testing.networks import (
    guest,
    implement,
    net_of,
    owner_of,
    router_of,
    running_network,
    virtual_network,
)


@pytest.fixture
def cloud(world: World) -> Cloud:
    return world.cloud()


@pytest.fixture
def user(world: World) -> Caller:
    return world.account()


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


def chosen(world: World, user: Caller, cloud: Cloud, *network_ids: int) -> list[int]:
    with world.db.write() as tx:
        return for_deploy(tx, user, owner_of(user), cloud.zone, list(network_ids) or None)


def set_availability(world: World, availability: str) -> None:
    with world.db.write() as tx:
        named = update(network_offering).where(network_offering.c.name == VIRTUAL_NETWORK_OFFERING)
        tx.execute(named.values(availability=availability))


# ---- an account's own network


def test_an_account_gets_one_virtual_network_per_zone_however_often_it_deploys(
    world: World, cloud: Cloud, user: Caller
) -> None:
    first, second = chosen(world, user, cloud), chosen(world, user, cloud)
    assert first == second
    net = net_of(world, first[0])
    assert (net.cidr, net.gateway, net.state) == ("10.1.1.0/24", "10.1.1.1", NetworkState.ALLOCATED)
    assert chosen(world, world.account(), cloud) != first
    assert chosen(world, user, world.cloud()) != first


def test_the_zone_says_which_addresses_guests_have(world: World, user: Caller) -> None:
    zone_id = world.zone(guest_cidr="172.20.0.0/16")
    net = net_of(world, virtual_network(world, user, zone_id))
    assert (net.cidr, net.gateway) == ("172.20.0.0/16", "172.20.0.1")


def test_implementing_claims_vlan_address_and_router(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    net, router = net_of(world, network_id), router_of(world, network_id)
    assert (net.state, net.vnet) == (NetworkState.IMPLEMENTED, 1000)
    assert router.runs
    assert router.name == f"r-{router.id}-VM"
    with world.reading() as tx:
        guest_side, public_side = nics.specs(tx, router.id)
        written = set(tx.execute(select(event.c.type)).scalars())
    assert (guest_side.ip, guest_side.network.tag) == ("10.1.1.1", 1000)
    assert (public_side.ip, public_side.gateway) == ("198.51.100.10", "198.51.100.1")
    assert {"NETWORK.CREATE", "NET.IPASSIGN", "ROUTER.CREATE", "ROUTER.START"} <= written
    world.assert_nothing_left()


def test_two_accounts_get_different_vlans_and_addresses_for_the_same_cidr(world: World, cloud: Cloud) -> None:
    one, other = (net_of(world, running_network(world, world.account(), cloud.zone)) for _ in range(2))
    assert one.cidr == other.cidr
    assert one.vnet != other.vnet
    assert len(world.left().addresses) == 2


def test_without_a_free_vlan_the_network_is_refused_and_nothing_is_left(world: World, user: Caller) -> None:
    zone_id = world.zone(vnets=(500, 500))
    world.host(world.cluster(world.pod(zone_id)))
    world.public_range(zone_id)
    running_network(world, user, zone_id)
    late = virtual_network(world, world.account(), zone_id)
    before = world.left()
    code, text = world.failure(implement(world, late))
    assert code == 533
    assert "VLAN" in text
    world.assert_nothing_left(before)


def test_without_a_free_address_the_network_is_refused_and_nothing_is_left(world: World, user: Caller) -> None:
    zone_id = world.zone()
    world.host(world.cluster(world.pod(zone_id)))
    network_id = virtual_network(world, user, zone_id)
    before = world.left()
    code, text = world.failure(implement(world, network_id))
    assert code == 533
    assert "address" in text
    world.assert_nothing_left(before)


def test_an_account_at_its_limit_of_addresses_gets_no_network(world: World, cloud: Cloud) -> None:
    network_id = virtual_network(world, world.account(maximum=0), cloud.zone)
    before = world.left()
    assert world.failure(implement(world, network_id))[0] == 535
    world.assert_nothing_left(before)


def test_without_room_for_a_router_each_host_is_named_with_its_reason(world: World, user: Caller) -> None:
    cloud = world.cloud(hosts=2, cpus=1, memory=32 << 20)
    network_id = virtual_network(world, user, cloud.zone)
    before = world.left()
    code, text = world.failure(implement(world, network_id))
    assert code == 533
    assert text.count("not enough memory") == 2
    world.assert_nothing_left(before)


# ---- which networks a guest gets


def test_the_virtual_network_must_be_chosen_where_it_is_required(world: World, cloud: Cloud, user: Caller) -> None:
    admin = Client(world.db)
    shared = key_of(world, direct(admin, world, cloud, isdefault=True)["id"])
    own = virtual_network(world, user, cloud.zone)
    with pytest.raises(ParameterError, match="required"):
        chosen(world, user, cloud, shared)
    assert chosen(world, user, cloud, shared, own) == [own, shared]


def test_a_direct_network_may_be_the_default_where_the_virtual_one_is_optional(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    set_availability(world, "Optional")
    shared = key_of(world, direct(admin, world, cloud, isdefault=True)["id"])
    assert chosen(world, user, cloud, shared) == [shared]


def test_the_only_default_direct_network_is_taken_where_the_virtual_one_is_unavailable(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    set_availability(world, "Unavailable")
    with pytest.raises(ParameterError, match="no default network"):
        chosen(world, user, cloud)
    shared = key_of(world, direct(admin, world, cloud, isdefault=True)["id"])
    assert chosen(world, user, cloud) == [shared]


def test_no_virtual_network_is_made_where_it_is_unavailable_and_those_there_stay(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    own = virtual_network(world, user, cloud.zone)
    set_availability(world, "Unavailable")
    with pytest.raises(ParameterError, match="unavailable"):
        chosen(world, user, cloud, own)
    client, where = Client(world.db, world.account()), world.uuid(zone, cloud.zone)
    with pytest.raises(Refused, match="unavailable") as refused:
        client.call("associateIpAddress", zoneid=where)
    assert refused.value.code == 431
    with pytest.raises(Refused, match="unavailable") as refused:
        client.call(
            "createNetwork", name="a", displaytext="a", zoneid=where,
            networkofferingid=offering(admin, VIRTUAL_NETWORK_OFFERING),
        )  # fmt: skip
    assert refused.value.code == 431
    assert "jobid" in Client(world.db, user).call("associateIpAddress", zoneid=where)


def test_a_virtual_network_that_may_not_be_the_default_is_none_where_one_is_required(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    made = Client(world.db, user).one(
        "createNetwork", name="side", displaytext="side", zoneid=world.uuid(zone, cloud.zone), isdefault=False,
        networkofferingid=offering(admin, VIRTUAL_NETWORK_OFFERING), gateway="10.7.0.1", netmask="255.255.255.0",
    )  # fmt: skip
    side, own = key_of(world, made["id"]), virtual_network(world, user, cloud.zone)
    lan = key_of(world, direct(admin, world, cloud, isdefault=True)["id"])
    with pytest.raises(ParameterError, match="required as the default"):
        chosen(world, user, cloud, side, lan)
    assert chosen(world, user, cloud, side, lan, own) == [own, side, lan]


def test_one_of_the_networks_must_be_a_default_one(world: World, cloud: Cloud, user: Caller, admin: Client) -> None:
    set_availability(world, "Optional")
    shared = key_of(world, direct(admin, world, cloud, isdefault=False)["id"])
    with pytest.raises(ParameterError, match="default"):
        chosen(world, user, cloud, shared)


def test_networks_of_others_of_other_zones_and_given_twice_are_refused(
    world: World, cloud: Cloud, user: Caller
) -> None:
    foreign = virtual_network(world, world.account(), cloud.zone)
    elsewhere = virtual_network(world, user, world.cloud().zone)
    own = virtual_network(world, user, cloud.zone)
    with pytest.raises(PermissionDenied):
        chosen(world, user, cloud, own, foreign)
    with pytest.raises(ParameterError, match="another zone"):
        chosen(world, user, cloud, own, elsewhere)
    with pytest.raises(ParameterError, match="twice"):
        chosen(world, user, cloud, own, own)


def test_a_network_shared_with_a_domain_is_not_offered_outside_it(world: World, cloud: Cloud, admin: Client) -> None:
    set_availability(world, "Optional")
    inside = world.domain("inside")
    inside_uuid = admin.call("listDomains", id=inside)["domain"][0]["id"]
    shared = key_of(world, direct(admin, world, cloud, isdefault=True, domainid=inside_uuid)["id"])
    assert chosen(world, world.account(domain_id=inside), cloud, shared) == [shared]
    with pytest.raises(PermissionDenied):
        chosen(world, world.account(), cloud, shared)


def test_networks_of_a_domain_come_down_to_those_below_unless_the_setting_forbids_it(
    world: World, cloud: Cloud, admin: Client
) -> None:
    set_availability(world, "Optional")
    above = world.domain("above")
    below = world.account(domain_id=world.domain("below", parent_id=above))
    beside = world.account(domain_id=above)
    of_above = admin.call("listDomains", id=above)["domain"][0]["id"]
    theirs = direct(admin, world, cloud, name="theirs", isdefault=True, domainid=of_above)
    ours = {"gateway": "192.0.3.1", "startip": "192.0.3.10", "endip": None, "vlan": "78"}
    everybodys = direct(admin, world, cloud, name="everybodys", isdefault=True, **ours)
    shared, zone_wide = key_of(world, theirs["id"]), key_of(world, everybodys["id"])
    client = Client(world.db, below)
    assert client.names("listNetworks") == ["theirs", "everybodys"]
    assert chosen(world, below, cloud, shared) == [shared]
    assert theirs["subdomainaccess"]

    admin.call("updateConfiguration", name="allow.subdomain.network.access", value="false")
    assert client.names("listNetworks") == ["everybodys"]
    with pytest.raises(PermissionDenied):
        chosen(world, below, cloud, shared)
    assert chosen(world, below, cloud, zone_wide) == [zone_wide]
    assert chosen(world, beside, cloud, shared) == [shared]
    shown = Client(world.db, beside).call("listNetworks")["network"]
    assert [(net["name"], net["subdomainaccess"]) for net in shown] == [("theirs", False), ("everybodys", True)]


# ---- addresses of guests


def test_guests_get_the_lowest_free_addresses_and_give_them_back(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = virtual_network(world, user, cloud.zone)
    first, second = (guest(world, user, cloud, network_id, name=name) for name in ("a", "b"))
    with world.reading() as tx:
        rows = {row["vm_id"]: row["ip"] for row in tx.all(select(nics.nic.c.vm_id, nics.nic.c.ip))}
    assert (rows[first], rows[second]) == ("10.1.1.2", "10.1.1.3")
    with world.db.write() as tx:
        assert nics.release_all(tx, first) == (network_id,)
        again = nics.allocate(tx, network_id=network_id, vm_id=second, device_id=1, is_default=False)
        assert tx.scalar(select(nics.nic.c.ip).where(nics.nic.c.id == again)) == "10.1.1.2"


@pytest.mark.parametrize("wanted", ["10.1.1.1", "10.1.1.0", "10.1.1.255", "10.2.0.5", "fe80::1", "10.1.1.2"])
def test_an_address_that_is_taken_or_not_usable_is_refused(
    world: World, cloud: Cloud, user: Caller, wanted: str
) -> None:
    network_id = virtual_network(world, user, cloud.zone)
    vm_id = guest(world, user, cloud, network_id)
    with world.db.write() as tx, pytest.raises(ParameterError) as refused:
        nics.allocate(tx, network_id=network_id, vm_id=vm_id, device_id=1, is_default=False, ip=wanted)
    assert refused.value.parameter == "ipaddress"


def test_a_full_network_has_no_address_left(world: World, user: Caller) -> None:
    cloud = world.cloud()
    with world.db.write() as tx:
        tx.execute(update(zone).where(zone.c.id == cloud.zone).values(guest_cidr="10.9.9.0/29"))
    network_id = virtual_network(world, user, cloud.zone)
    for n in range(5):
        guest(world, user, cloud, network_id, name=f"g{n}")
    with pytest.raises(InsufficientCapacity):
        guest(world, user, cloud, network_id, name="one-too-many")


# ---- virtual networks of users


def test_a_user_creates_more_virtual_networks_with_addresses_of_its_own(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    client = Client(world.db, user)
    ours = {
        "displaytext": "mine",
        "networkofferingid": offering(admin, VIRTUAL_NETWORK_OFFERING),
        "zoneid": world.uuid(zone, cloud.zone),
    }
    made = client.one("createNetwork", name="a", gateway="10.7.0.1", netmask="255.255.252.0", tags="x,y", **ours)
    assert (made["cidr"], made["gateway"], made["netmask"]) == ("10.7.0.0/22", "10.7.0.1", "255.255.252.0")
    assert made["tags"] == "x,y"
    assert "vlan" not in made
    for wrong in (
        {"gateway": "10.7.0.1"},
        {"gateway": "10.0.0.1", "netmask": "255.0.0.0"},
        {"gateway": "8.8.8.1", "netmask": "255.255.255.0"},
        {"gateway": "10.7.0.0", "netmask": "255.255.255.0"},
        {"vlan": "9"},
        {"isshared": True},
    ):
        with pytest.raises(Refused) as refused:
            client.one("createNetwork", name="b", **ours, **wrong)
        assert refused.value.code == 431, wrong
    assert client.names("listNetworks") == ["a"]


def test_an_account_with_several_virtual_networks_must_choose(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    client = Client(world.db, user)
    for name in ("a", "b"):
        client.one(
            "createNetwork",
            name=name,
            displaytext=name,
            networkofferingid=offering(admin, VIRTUAL_NETWORK_OFFERING),
            zoneid=world.uuid(zone, cloud.zone),
        )
    with pytest.raises(ParameterError, match="several"):
        chosen(world, user, cloud)


# ---- lists


def test_users_see_their_own_networks_and_shared_ones_and_no_vlan(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    own = running_network(world, user, cloud.zone)
    running_network(world, world.account(), cloud.zone)
    direct(admin, world, cloud)
    shown = Client(world.db, user).call("listNetworks")["network"]
    assert [net["name"] for net in shown] == ["Virtual Network", "lan"]
    assert shown[0]["id"] == world.uuid(network, own)
    assert not {"vlan", "broadcasturi"} & set(shown[0])
    assert shown[1]["isshared"] is True
    assert "account" not in shown[1]
    everything = admin.call("listNetworks", listall=True)["network"]
    assert [net["vlan"] for net in everything] == ["1000", "1001", "77"]
    assert {service["name"] for service in everything[0]["service"]} >= {"Dhcp", "Dns", "SourceNat", "UserData"}


def test_filters_narrow_the_list(world: World, cloud: Cloud, user: Caller, admin: Client) -> None:
    own = world.uuid(network, virtual_network(world, user, cloud.zone))
    direct(admin, world, cloud, isdefault=True)
    assert admin.names("listNetworks", listall=True, type="Direct") == ["lan"]
    assert admin.names("listNetworks", listall=True, isshared=False) == ["Virtual Network"]
    assert admin.names("listNetworks", id=own) == ["Virtual Network"]
    assert admin.names("listNetworks", account=user.account_name, domainid=1, isshared=False) == ["Virtual Network"]
    assert admin.names("listNetworks", listall=True, keyword="la") == ["lan"]
    assert admin.names("listNetworks", listall=True, issystem=True) == ["Public"]
    assert Client(world.db, user).names("listNetworks", issystem=True) == []
    assert admin.names("listNetworks", listall=True, traffictype="Public") == []
    with pytest.raises(Refused):
        admin.call("listNetworks", type="Weird")


def test_a_page_of_networks_costs_the_same_however_long_it_is(world: World, cloud: Cloud, admin: Client) -> None:
    virtual_network(world, world.account(), cloud.zone)
    admin.call("listNetworks", listall=True)
    with counted_statements(world.db) as few:
        admin.call("listNetworks", listall=True)
    for _ in range(8):
        virtual_network(world, world.account(), cloud.zone)
    with counted_statements(world.db) as many:
        assert admin.call("listNetworks", listall=True)["count"] == 9
    assert len(many) == len(few)


# ---- update, restart, delete


def test_a_network_with_guests_is_not_deleted(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    guest(world, user, cloud, network_id)
    with pytest.raises(Refused) as refused:
        Client(world.db, user).call("deleteNetwork", id=world.uuid(network, network_id))
    assert refused.value.code == 536
    assert net_of(world, network_id).state is NetworkState.IMPLEMENTED


def test_a_deleted_network_gives_everything_back_and_another_can_be_made(
    world: World, cloud: Cloud, user: Caller
) -> None:
    before = world.left().addresses
    network_id = running_network(world, user, cloud.zone)
    client = Client(world.db, user)
    world.result(client.call("deleteNetwork", id=world.uuid(network, network_id))["jobid"])
    world.assert_nothing_left()
    assert world.left().addresses == before
    assert client.call("listNetworks") == {}
    assert running_network(world, user, cloud.zone) != network_id


def test_a_guest_that_comes_while_its_network_is_deleted_keeps_it(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    job = Client(world.db, user).call("deleteNetwork", id=world.uuid(network, network_id))["jobid"]
    guest(world, user, cloud, network_id)
    assert world.failure(job)[0] == 536
    assert net_of(world, network_id).live
    world.reconcile("network-config")
    world.settle()
    world.assert_nothing_left()


def test_users_change_nothing_of_others_and_nothing_shared(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    foreign = world.uuid(network, running_network(world, user, cloud.zone))
    shared = direct(admin, world, cloud)["id"]
    stranger = Client(world.db, world.account())
    for uuid in (foreign, shared):
        for command in ("deleteNetwork", "restartNetwork", "updateNetwork"):
            with pytest.raises(Refused) as refused:
                stranger.call(command, id=uuid, name="mine")
            assert refused.value.code == 531, command


def test_only_an_implemented_network_restarts(world: World, cloud: Cloud, user: Caller) -> None:
    client, network_id = Client(world.db, user), virtual_network(world, user, cloud.zone)
    with pytest.raises(Refused, match="Allocated") as refused:
        client.call("restartNetwork", id=world.uuid(network, network_id))
    assert refused.value.code == 431


@pytest.mark.parametrize("cleanup", [False, True])
def test_a_restart_brings_the_same_rules_and_with_cleanup_another_router(
    world: World, cloud: Cloud, user: Caller, *, cleanup: bool
) -> None:
    network_id = running_network(world, user, cloud.zone)
    guest(world, user, cloud, network_id)
    world.reconcile("network-config")
    world.settle()
    before, config = router_of(world, network_id), applied(world, network_id)
    job = Client(world.db, user).call("restartNetwork", id=world.uuid(network, network_id), cleanup=cleanup)["jobid"]
    world.result(job)
    after = router_of(world, network_id)
    assert (after.id != before.id) is cleanup
    assert after.runs
    assert applied(world, network_id) == config
    world.assert_nothing_left()


def applied(world: World, network_id: int) -> object:
    with world.reading() as tx:
        config = networks.network_config
        return tx.scalar(select(config.c.applied_fingerprint).where(config.c.network_id == network_id))


def test_an_update_changes_names_and_the_domain_while_nobody_is_there(world: World, cloud: Cloud, user: Caller) -> None:
    client, network_id = Client(world.db, user), running_network(world, user, cloud.zone)
    uuid = world.uuid(network, network_id)
    job = client.call("updateNetwork", id=uuid, name="new", displaytext="text", networkdomain="a.example")["jobid"]
    world.settle()
    shown = client.call("queryAsyncJobResult", jobid=job)["jobresult"]["network"]
    assert (shown["name"], shown["displaytext"], shown["networkdomain"]) == ("new", "text", "a.example")
    guest(world, user, cloud, network_id)
    with pytest.raises(Refused) as refused:
        client.call("updateNetwork", id=uuid, networkdomain="b.example")
    assert refused.value.code == 536


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"name": " "}, "name"),
        ({"displaytext": "a\x07"}, "displaytext"),
        ({"tags": ",".join(["x" * 250] * 2)}, "tags"),
        ({"networkdomain": "not a domain"}, "networkdomain"),
    ],
)
def test_an_update_that_cannot_be_is_refused_and_changes_nothing(
    world: World, cloud: Cloud, user: Caller, wrong: dict[str, str], parameter: str
) -> None:
    client, uuid = Client(world.db, user), world.uuid(network, virtual_network(world, user, cloud.zone))
    before = client.call("listNetworks")
    with pytest.raises(Refused) as refused:
        client.call("updateNetwork", id=uuid, **{"name": "new", **wrong})
    assert (refused.value.code, parameter in refused.value.text) == (431, True)
    assert client.call("listNetworks") == before
    assert world.open_jobs() == []
