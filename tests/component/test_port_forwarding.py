"""Port forwarding rules through the API."""

import pytest

from pileus.server.db.queries import nic as nics
from pileus.server.db.tables.network import public_ip
from pileus.server.db.tables.vm import vm
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Id, Network
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client, Refused, counted_statements
from pileus.testing.networks import guest, router_of, running_network
from pileus.wire.router import PortForward


@pytest.fixture
def cloud(world: World) -> Cloud:
    return world.cloud()


@pytest.fixture
def user(world: World) -> Caller:
    return world.account()


@pytest.fixture
def network_id(world: World, cloud: Cloud, user: Caller) -> Id[Network]:
    return running_network(world, user, cloud.zone)


@pytest.fixture
def web(world: World, cloud: Cloud, user: Caller, network_id: int) -> str:
    return world.uuid(vm, guest(world, user, cloud, network_id))


@pytest.fixture
def client(world: World, user: Caller) -> Client:
    return Client(world.db, user)


def order(world: World, web: str, **wishes: object) -> dict[str, object]:
    return {
        "ipaddressid": world.uuid(public_ip, 1),
        "virtualmachineid": web,
        "protocol": "tcp",
        "publicport": 8080,
        "privateport": 80,
        **wishes,
    }


def added(world: World, client: Client, web: str, **wishes: object) -> dict[str, object]:
    started = client.call("createPortForwardingRule", **order(world, web, **wishes))
    world.settle()
    done = client.call("queryAsyncJobResult", jobid=started["jobid"])
    assert done["jobstatus"] == 1, done
    assert done["jobresult"]["portforwardingrule"]["id"] == started["id"]
    return dict(done["jobresult"]["portforwardingrule"])


def forwards(world: World, network_id: int) -> tuple[PortForward, ...]:
    name = router_of(world, network_id).name
    config = next(found.config for _, found in world.hosts.world.guests() if found.name == name)
    assert config is not None
    return config.port_forwards


def test_a_rule_is_on_the_router_when_its_job_is_done(world: World, network_id: int, web: str, client: Client) -> None:
    shown = added(world, client, web, publicendport=8089, privateendport=89, protocol="TCP")
    assert (shown["state"], shown["protocol"]) == ("Active", "tcp")
    assert (shown["publicport"], shown["publicendport"], shown["privateendport"]) == ("8080", "8089", "89")
    assert (shown["ipaddress"], shown["virtualmachineid"]) == ("198.51.100.10", web)
    (forward,) = forwards(world, network_id)
    assert (forward.ip, forward.public_start, forward.public_end) == ("198.51.100.10", 8080, 8089)
    assert (forward.guest_ip, forward.guest_start, forward.guest_end) == ("10.1.1.2", 80, 89)
    world.assert_nothing_left()


@pytest.mark.parametrize(
    "wishes",
    [
        {"protocol": "icmp"},
        {"publicport": 0},
        {"publicport": 65536},
        {"privateport": 70000},
        {"publicendport": 8070},
        {"publicendport": 8082},
        {"publicendport": 8082, "privateendport": 81},
        {"cidrlist": "192.0.2.1/24"},
        {"cidrlist": "everybody"},
        {"openfirewall": False, "cidrlist": "192.0.2.0/24"},
    ],
)
def test_a_rule_that_cannot_be_is_refused_and_leaves_nothing(
    world: World, web: str, client: Client, wishes: dict[str, object]
) -> None:
    with pytest.raises(Refused) as refused:
        client.call("createPortForwardingRule", **order(world, web, **wishes))
    assert refused.value.code == 431
    assert client.call("listPortForwardingRules") == {}


def test_rules_that_overlap_are_refused_and_others_are_not(world: World, web: str, client: Client) -> None:
    added(world, client, web, publicendport=8089, privateendport=89)
    for overlapping in ({}, {"publicport": 8089}, {"publicport": 8000, "publicendport": 8100, "privateendport": 180}):
        with pytest.raises(Refused) as refused:
            client.call("createPortForwardingRule", **order(world, web, **overlapping))
        assert refused.value.code == 537, overlapping
    added(world, client, web, protocol="udp")
    added(world, client, web, publicport=8090)
    assert client.call("listPortForwardingRules")["count"] == 3


def test_a_deleted_rule_leaves_the_router_and_its_ports_are_free(
    world: World, network_id: int, web: str, client: Client
) -> None:
    rule = added(world, client, web)["id"]
    job = client.call("deletePortForwardingRule", id=rule)["jobid"]
    with pytest.raises(Refused) as refused:
        client.call("deletePortForwardingRule", id=rule)
    assert refused.value.code == 536
    world.result(job)
    assert forwards(world, network_id) == ()
    added(world, client, web)


def test_rules_go_with_their_address_and_with_their_guest(
    world: World, cloud: Cloud, network_id: int, web: str, client: Client
) -> None:
    started = client.call("associateIpAddress", zoneid=cloud.zone)
    world.result(started["jobid"])
    added(world, client, web, ipaddressid=started["id"])
    added(world, client, web)
    world.result(client.call("disassociateIpAddress", id=started["id"])["jobid"])
    assert [forward.ip for forward in forwards(world, network_id)] == ["198.51.100.10"]
    with world.db.write() as tx:
        nics.release_all(tx, int(tx.scalar(vm.select().with_only_columns(vm.c.id).where(vm.c.uuid == web))))
    world.reconcile("network-config")
    world.settle()
    assert forwards(world, network_id) == ()
    assert client.call("listPortForwardingRules") == {}


def test_a_guest_must_be_on_the_network_of_the_address(
    world: World, cloud: Cloud, user: Caller, network_id: int, client: Client
) -> None:
    bare = world.uuid(vm, guest(world, user, cloud, name="bare"))
    with pytest.raises(Refused) as refused:
        client.call("createPortForwardingRule", **order(world, bare))
    assert refused.value.code == 431


def test_nobody_forwards_to_guests_or_from_addresses_of_others(
    world: World, cloud: Cloud, web: str, client: Client
) -> None:
    rule = added(world, client, web)["id"]
    stranger = world.account()
    other_network = running_network(world, stranger, cloud.zone)
    other_web = world.uuid(vm, guest(world, stranger, cloud, other_network))
    others = Client(world.db, stranger)
    for sent in (order(world, web), order(world, other_web)):
        with pytest.raises(Refused) as refused:
            others.call("createPortForwardingRule", **sent)
        assert refused.value.code == 531
    for command in ("deletePortForwardingRule", "listPortForwardingRules"):
        with pytest.raises(Refused) as refused:
            others.call(command, id=rule)
        assert refused.value.code == 531
    assert others.call("listPortForwardingRules") == {}
    with pytest.raises(Refused) as refused:
        Client(world.db).call("createPortForwardingRule", **order(world, other_web))
    assert refused.value.code == 531


def test_filters_narrow_the_list_and_a_page_costs_the_same(world: World, web: str, client: Client) -> None:
    first = added(world, client, web)
    client.call("listPortForwardingRules")
    with counted_statements(world.db) as few:
        client.call("listPortForwardingRules")
    for port in range(9001, 9005):
        added(world, client, web, publicport=port)
    with counted_statements(world.db) as many:
        assert client.call("listPortForwardingRules")["count"] == 5
    assert len(many) == len(few)
    assert client.call("listPortForwardingRules", id=first["id"])["count"] == 1
    assert client.call("listPortForwardingRules", ipaddressid=world.uuid(public_ip, 1))["count"] == 5
