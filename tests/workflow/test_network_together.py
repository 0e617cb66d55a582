"""Several guests and one network: what one job does, another may rely on."""

import pytest

from pileus.server.domain.caller import Caller
from pileus.server.domain.network import NetworkState
from pileus.server.jobs.plan import Parts, workflow
from pileus.server.jobs.submit import JobRef, submit
from pileus.server.services import network as network_service
from pileus.server.workflows.network_ready import network_ready
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.networks import guest, net_of, owner_of, router_of, running_network, virtual_network
from pileus.wire.messages import Answer
from pileus.wire.operations import Reason, Refusal, StartRouter


@workflow("test.network_together")
def only_network(network: int, vm: int) -> Parts:
    """A deploy that asks for nothing but its network."""
    yield network_ready(network=network, vm=vm)


@pytest.fixture
def cloud(world: World) -> Cloud:
    return world.cloud()


@pytest.fixture
def user(world: World) -> Caller:
    return world.account()


def ready(world: World, user: Caller, network_id: int, vm_id: int) -> JobRef:
    with world.db.write() as tx:
        return submit(tx, only_network(network=network_id, vm=vm_id), owner_of(user), command="test")


def started(world: World) -> int:
    """How many routers run."""
    return sum(found.router and found.running for _, found in world.hosts.world.guests())


def test_guests_that_come_at_once_share_one_vlan_one_address_and_one_router(
    world: World, cloud: Cloud, user: Caller
) -> None:
    network_id = virtual_network(world, user, cloud.zone)
    jobs = [ready(world, user, network_id, guest(world, user, cloud, network_id, name=f"guest-{n}")) for n in range(5)]
    for job in jobs:
        world.result(job)
    left = world.left()
    assert (len(left.vnets), len(left.addresses), started(world)) == (1, 1, 1)
    config = next(found.config for _, found in world.hosts.world.guests())
    assert config is not None
    assert sorted(lease.hostname for lease in config.leases) == [f"guest-{n}" for n in range(5)]
    world.assert_nothing_left()


def test_when_the_first_job_fails_the_second_tries_for_itself(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = virtual_network(world, user, cloud.zone)
    first, second = (
        ready(world, user, network_id, guest(world, user, cloud, network_id, name=name)) for name in ("a", "b")
    )
    refused: list[str] = []

    def refuse_first_round(waiting: object) -> Answer | None:
        operation_id = getattr(waiting, "operation_id", "")
        if not isinstance(getattr(waiting, "operation", None), StartRouter) or len(refused) == len(cloud.hosts):
            return None
        refused.append(operation_id)
        return Answer(operation_id, "", refusal=Refusal(Reason.FAILED, "not today"))

    world.instead = refuse_first_round
    code, text = world.failure(first)
    assert code == 533
    assert text.count("not today") == len(cloud.hosts)
    world.result(second)
    assert net_of(world, network_id).state is NetworkState.IMPLEMENTED
    assert started(world) == 1
    world.assert_nothing_left()


def test_a_host_that_refuses_the_router_is_avoided(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = virtual_network(world, user, cloud.zone)
    tried: list[int] = []

    def refuse_once(waiting: object) -> Answer | None:
        if not isinstance(getattr(waiting, "operation", None), StartRouter):
            return None
        tried.append(getattr(waiting, "host_id", 0))
        if len(tried) > 1:
            return None
        return Answer(getattr(waiting, "operation_id", ""), "", refusal=Refusal(Reason.NO_ROOM, "full"))

    world.instead = refuse_once
    world.result(ready(world, user, network_id, guest(world, user, cloud, network_id)))
    assert sorted(tried) == sorted(cloud.hosts)
    assert router_of(world, network_id).epoch == 2
    world.assert_nothing_left()


def test_a_guest_that_comes_while_the_network_goes_to_rest_wakes_it_again(
    world: World, cloud: Cloud, user: Caller
) -> None:
    network_id = running_network(world, user, cloud.zone)
    vm_id = guest(world, user, cloud, network_id)
    world.reconcile("network-config", "network-gc")
    world.settle()
    world.clock.advance(1300)
    world.reconcile("network-gc")
    job = ready(world, user, network_id, vm_id)
    world.result(job)
    assert net_of(world, network_id).state is NetworkState.IMPLEMENTED
    assert router_of(world, network_id).runs
    world.assert_nothing_left()


def test_a_guest_waits_for_the_first_config_that_knows_it_and_not_for_later_ones(
    world: World, cloud: Cloud, user: Caller
) -> None:
    network_id = running_network(world, user, cloud.zone)
    vm_id = guest(world, user, cloud, network_id)
    wanted = net_of(world, network_id).desired
    job = ready(world, user, network_id, vm_id)
    world.result(job)
    assert net_of(world, network_id).applied >= wanted
    with world.db.write() as tx:
        network_service.virtual_router.changed(tx, network_id)
    again = ready(world, user, network_id, vm_id)
    world.engine.run_one()
    assert world.job(again)["phase"] == "succeeded"
    world.settle()
    world.assert_nothing_left()
