"""What keeps networks right by itself: idle ones go to rest, routers run what is declared, dead ones come back."""

import pytest
from sqlalchemy import func, select

from pileus.server.config import change, keys
from pileus.server.db.queries import network as networks
from pileus.server.db.tables.host import host_operation
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.vm import vm
from pileus.server.domain.account import ADMIN_USER
from pileus.server.domain.caller import Caller
from pileus.server.domain.network import NetworkState
from pileus.server.domain.vm import VmState
from pileus.server.workflows.router_lost import lost
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client
from pileus.testing.networks import guest, implement, net_of, router_of, running_network, set_state
from pileus.wire.router import RouterConfig, fingerprint


@pytest.fixture
def cloud(world: World) -> Cloud:
    return world.cloud()


@pytest.fixture
def user(world: World) -> Caller:
    return world.account()


def config_of(world: World, network_id: int) -> RouterConfig:
    """What the network's router runs."""
    name = router_of(world, network_id).name
    config = next(found.config for _, found in world.hosts.world.guests() if found.name == name)
    assert config is not None
    return config


# ---- garbage collection


def test_an_idle_network_goes_to_rest_after_the_wait_and_comes_back_with_its_address(
    world: World, cloud: Cloud, user: Caller
) -> None:
    network_id = running_network(world, user, cloud.zone)
    vm_id = guest(world, user, cloud, network_id, state=VmState.RUNNING)
    client = Client(world.db, user)
    outside = client.call("listPublicIpAddresses")["publicipaddress"][0]["id"]
    forward = {"protocol": "TCP", "publicport": 80, "privateport": 8080, "virtualmachineid": world.uuid(vm, vm_id)}
    world.result(client.call("createPortForwardingRule", ipaddressid=outside, **forward)["jobid"])
    world.reconcile("network-config", "network-gc")
    world.settle()
    before = config_of(world, network_id)
    assert before.port_forwards
    world.clock.advance(3600)
    world.reconcile("network-gc")
    world.settle()
    assert net_of(world, network_id).state is NetworkState.IMPLEMENTED

    set_state(world, vm_id, VmState.STOPPED)
    world.reconcile("network-gc")
    world.settle()
    assert net_of(world, network_id).state is NetworkState.IMPLEMENTED
    world.clock.advance(1300)
    world.reconcile("network-gc")
    world.settle()
    resting = net_of(world, network_id)
    assert (resting.state, resting.vnet, resting.router_id) == (NetworkState.ALLOCATED, None, None)
    assert world.left().addresses == ("198.51.100.10 Allocated",)
    world.assert_nothing_left()

    world.result(implement(world, network_id))
    assert router_of(world, network_id).runs
    assert world.left().addresses == ("198.51.100.10 Allocated",)
    assert fingerprint(config_of(world, network_id)) == fingerprint(before)


def test_the_wait_is_a_setting(world: World, cloud: Cloud, user: Caller) -> None:
    with world.db.write() as tx:
        change(tx, keys.network_gc_wait, "10", user_id=ADMIN_USER)
        change(tx, keys.network_gc_interval, "5", user_id=ADMIN_USER)
    network_id = running_network(world, user, cloud.zone)
    world.reconcile("network-gc")
    world.clock.advance(20)
    world.reconcile("network-gc")
    world.settle()
    assert net_of(world, network_id).state is NetworkState.ALLOCATED


# ---- what routers run


def test_a_change_nobody_declared_is_found_and_brought_to_the_router(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    with world.db.write() as tx:
        networks.change(tx, network_id, network_domain="drifted.example")
    before = net_of(world, network_id).applied
    world.reconcile("network-drift")
    world.settle()
    net = net_of(world, network_id)
    assert net.applied == net.desired == before + 1
    world.reconcile("network-drift")
    world.settle()
    assert net_of(world, network_id).desired == net.desired


def test_new_names_and_dns_servers_go_to_the_router_at_once(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    guest(world, user, cloud, network_id, state=VmState.RUNNING)
    world.reconcile("network-config")
    world.settle()
    client = Client(world.db)
    client.call("updateZone", id=world.uuid(zone, cloud.zone), name="elsewhere", dns2="192.0.2.99")
    client.call("updateServiceOffering", id=world.uuid(service_offering, cloud.offering), name="roomy")
    world.settle()
    router = router_of(world, network_id)
    runs = world.hosts.world.config_of(router.name)
    assert runs is not None
    assert "192.0.2.99" in runs.dns
    (served,) = runs.guests
    assert (served.metadata["availability-zone"], served.metadata["service-offering"]) == ("elsewhere", "roomy")


def test_what_a_router_does_not_serve_pushes_nothing(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    world.settle()
    before = net_of(world, network_id).desired
    client = Client(world.db)
    client.call("updateZone", id=world.uuid(zone, cloud.zone), dns1="192.0.2.53", internaldns1="192.0.2.54")
    client.call("updateServiceOffering", id=world.uuid(service_offering, cloud.offering), displaytext="roomy")
    assert net_of(world, network_id).desired == before


def test_many_changes_go_to_the_router_in_few_pushes(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    for n in range(20):
        guest(world, user, cloud, network_id, name=f"g{n}")
    world.reconcile("network-config")
    world.settle()
    net = net_of(world, network_id)
    assert net.applied == net.desired
    with world.reading() as tx:
        pushes = tx.scalar(select(func.count()).where(host_operation.c.kind == "ConfigureRouter"))
    assert pushes == 1


def test_a_router_that_died_is_started_again_for_running_guests_only(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    vm_id = guest(world, user, cloud, network_id, state=VmState.STOPPED)
    lose(world, network_id)
    assert router_of(world, network_id).state is VmState.STOPPED
    set_state(world, vm_id, VmState.RUNNING)
    world.clock.advance(120)
    world.reconcile("network-config")
    world.settle()
    assert router_of(world, network_id).runs


def lose(world: World, network_id: int) -> None:
    """The host says that it does not run the router; its remains are gone."""
    router = router_of(world, network_id)
    assert router.life is not None
    with world.db.write() as tx:
        assert lost(tx, router.id, epoch=router.life.epoch, why="test")
    for held in world.hosts.world.hosts.values():
        held.guests.pop(router.name, None)
    world.settle()
