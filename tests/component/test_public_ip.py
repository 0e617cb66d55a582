"""Public addresses through the API."""

import pytest

from pileus.server.db.tables.network import network, vlan_ip_range
from pileus.server.db.tables.place import zone
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client, Refused, counted_statements
from pileus.testing.networks import guest, net_of, router_of, running_network, virtual_network


@pytest.fixture
def cloud(world: World) -> Cloud:
    return world.cloud()


@pytest.fixture
def user(world: World) -> Caller:
    return world.account()


@pytest.fixture
def client(world: World, user: Caller) -> Client:
    return Client(world.db, user)


def acquired(world: World, client: Client, cloud: Cloud, **wishes: object) -> dict[str, object]:
    started = client.call("associateIpAddress", zoneid=world.uuid(zone, cloud.zone), **wishes)
    world.settle()
    done = client.call("queryAsyncJobResult", jobid=started["jobid"])
    assert done["jobstatus"] == 1, done
    shown = done["jobresult"]["ipaddress"]
    assert shown["id"] == started["id"]
    return dict(shown)


def public_of(world: World, network_id: int) -> list[str]:
    """Addresses that the network's router has."""
    name = router_of(world, network_id).name
    config = next(found.config for _, found in world.hosts.world.guests() if found.name == name)
    assert config is not None
    return [address.ip for address in config.public]


def test_an_acquired_address_is_on_the_router_when_the_job_is_done(
    world: World, cloud: Cloud, user: Caller, client: Client
) -> None:
    network_id = running_network(world, user, cloud.zone)
    shown = acquired(world, client, cloud)
    assert shown["associatednetworkid"] == world.uuid(network, network_id)
    assert (shown["ipaddress"], shown["issourcenat"], shown["state"]) == ("198.51.100.11", False, "Allocated")
    assert public_of(world, network_id) == ["198.51.100.10", "198.51.100.11"]
    world.assert_nothing_left()


def test_the_first_address_of_an_account_is_its_source_nat(world: World, cloud: Cloud, client: Client) -> None:
    assert acquired(world, client, cloud)["issourcenat"] is True
    assert acquired(world, client, cloud)["issourcenat"] is False


def test_a_released_address_leaves_the_router_and_is_free_again(
    world: World, cloud: Cloud, user: Caller, client: Client
) -> None:
    network_id = running_network(world, user, cloud.zone)
    before = world.left()
    extra = acquired(world, client, cloud)
    world.result(client.call("disassociateIpAddress", id=extra["id"])["jobid"])
    assert public_of(world, network_id) == ["198.51.100.10"]
    assert client.call("listPublicIpAddresses")["count"] == 1
    world.assert_nothing_left(before)


def test_a_source_nat_address_stays_with_its_network(world: World, cloud: Cloud, user: Caller, client: Client) -> None:
    running_network(world, user, cloud.zone)
    source = client.call("listPublicIpAddresses", issourcenat=True)["publicipaddress"][0]["id"]
    with pytest.raises(Refused) as refused:
        client.call("disassociateIpAddress", id=source)
    assert refused.value.code == 431


def test_an_address_on_another_vlan_is_never_given_to_a_router_that_cannot_reach_it(world: World, user: Caller) -> None:
    zone_id = world.zone()
    world.host(world.cluster(world.pod(zone_id)))
    world.public_range(zone_id, "198.51.100.10", "198.51.100.10")
    world.public_range(zone_id, "203.0.113.10", "203.0.113.19", vlan="200")
    running_network(world, user, zone_id)
    with pytest.raises(Refused) as refused:
        Client(world.db, user).call("associateIpAddress", zoneid=world.uuid(zone, zone_id))
    assert refused.value.code == 533


def test_when_no_address_is_left_the_caller_is_told_at_once(world: World, cloud: Cloud, client: Client) -> None:
    for _ in range(10):
        client.call("associateIpAddress", zoneid=world.uuid(zone, cloud.zone))
    world.settle()
    before = world.left()
    with pytest.raises(Refused) as refused:
        client.call("associateIpAddress", zoneid=world.uuid(zone, cloud.zone))
    assert refused.value.code == 533
    world.assert_nothing_left(before)


def test_addresses_count_against_the_limit(world: World, cloud: Cloud) -> None:
    client = Client(world.db, world.account(maximum=2))
    for _ in range(2):
        acquired(world, client, cloud)
    with pytest.raises(Refused) as refused:
        client.call("associateIpAddress", zoneid=world.uuid(zone, cloud.zone))
    assert refused.value.code == 535
    world.assert_nothing_left()


def test_nobody_touches_the_addresses_of_others(world: World, cloud: Cloud, user: Caller, client: Client) -> None:
    network_id = running_network(world, user, cloud.zone)
    extra = acquired(world, client, cloud)["id"]
    stranger = Client(world.db, world.account())
    for command, sent in (
        ("disassociateIpAddress", {"id": extra}),
        ("associateIpAddress", {"zoneid": cloud.zone, "networkid": world.uuid(network, network_id)}),
        ("listPublicIpAddresses", {"id": extra}),
    ):
        with pytest.raises(Refused) as refused:
            stranger.call(command, **sent)
        assert refused.value.code == 531, command
    assert stranger.call("listPublicIpAddresses") == {}


def test_filters_narrow_the_list_and_free_addresses_are_for_administrators(
    world: World, cloud: Cloud, user: Caller, client: Client
) -> None:
    running_network(world, user, cloud.zone)
    admin = Client(world.db)
    range_id = world.uuid(vlan_ip_range, 1)
    assert admin.call("listPublicIpAddresses", allocatedonly=False)["count"] == 10
    assert admin.call("listPublicIpAddresses", allocatedonly=False, ipaddress="198.51.100.15")["count"] == 1
    assert admin.call("listPublicIpAddresses", listall=True, vlanid=range_id)["count"] == 1
    assert admin.call("listPublicIpAddresses", listall=True, forvirtualnetwork=False) == {}
    assert admin.call("listPublicIpAddresses", listall=True, zoneid=world.zone()) == {}
    domain_admin = Client(world.db, world.account(type=AccountType.DOMAIN_ADMIN))
    assert domain_admin.call("listPublicIpAddresses", allocatedonly=False, listall=True)["count"] == 1
    shown = client.call("listPublicIpAddresses", allocatedonly=False)["publicipaddress"]
    assert len(shown) == 1
    assert "vlanid" not in shown[0]


def test_a_page_of_addresses_costs_the_same_however_long_it_is(world: World, cloud: Cloud) -> None:
    admin = Client(world.db)
    virtual_network(world, world.account(), cloud.zone)
    running_network(world, world.account(), cloud.zone)
    admin.call("listPublicIpAddresses", listall=True)
    with counted_statements(world.db) as few:
        admin.call("listPublicIpAddresses", listall=True)
    for _ in range(4):
        running_network(world, world.account(), cloud.zone)
    with counted_statements(world.db) as many:
        assert admin.call("listPublicIpAddresses", listall=True)["count"] == 5
    assert len(many) == len(few)


def test_an_address_that_is_being_released_is_not_released_twice(
    world: World, cloud: Cloud, user: Caller, client: Client
) -> None:
    running_network(world, user, cloud.zone)
    extra = acquired(world, client, cloud)["id"]
    job = client.call("disassociateIpAddress", id=extra)["jobid"]
    (shown,) = client.call("listPublicIpAddresses", id=extra)["publicipaddress"]
    assert (shown["jobid"], shown["jobstatus"]) == (job, 0)
    with pytest.raises(Refused) as refused:
        client.call("disassociateIpAddress", id=extra)
    assert refused.value.code == 536
    world.result(job)


def test_an_address_of_a_network_that_goes_goes_with_it(
    world: World, cloud: Cloud, user: Caller, client: Client
) -> None:
    network_id = running_network(world, user, cloud.zone)
    acquired(world, client, cloud)
    world.result(client.call("deleteNetwork", id=world.uuid(network, network_id))["jobid"])
    assert not net_of(world, network_id).live
    assert client.call("listPublicIpAddresses") == {}
    world.assert_nothing_left()


def test_guests_show_the_source_nat_address_as_their_public_one(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    guest(world, user, cloud, network_id)
    world.reconcile("network-config")
    world.settle()
    name = router_of(world, network_id).name
    config = next(found.config for _, found in world.hosts.world.guests() if found.name == name)
    assert config is not None
    (served,) = config.guests
    assert served.metadata == {
        "service-offering": served.metadata["service-offering"],
        "availability-zone": served.metadata["availability-zone"],
        "local-ipv4": "10.1.1.2",
        "local-hostname": "web",
        "public-ipv4": "198.51.100.10",
        "public-hostname": "198.51.100.10",
        "instance-id": served.metadata["instance-id"],
        "vm-id": served.metadata["vm-id"],
    }
    assert served.metadata["instance-id"].startswith(f"i-{user.account_id}-")
