"""Every workflow on networks and routers: whatever goes wrong where, it ends as it must and leaves nothing behind."""

import pytest
from network_cases import Case, address_of, at_rest, command, config_of, in_use, is_lost, is_running
from sqlalchemy import select

from pileus.server.db.queries import network as networks
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Tx
from pileus.server.domain.network import NetworkState
from pileus.server.domain.vm import VmState
from pileus.server.jobs.plan import Parts, workflow
from pileus.server.jobs.submit import JobRef, submit
from pileus.server.services import network as network_service
from pileus.server.services import public_ip
from pileus.server.services import router as routers
from pileus.server.workflows.network_configure import push
from pileus.server.workflows.network_ready import network_ready
from pileus.server.workflows.network_shutdown import network_shutdown
from pileus.testing import World
from pileus.testing.builders import root
from pileus.testing.networks import (
    direct_network,
    guest,
    implement,
    net_of,
    owner_of,
    router_of,
    running_network,
)
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness


def without_guest(world: World) -> Case:
    cloud = world.cloud()
    user = world.account()
    return Case(cloud, user, running_network(world, user, cloud.zone), 0)


def halted(world: World) -> Case:
    case = in_use(world)
    router = router_of(world, case.network).id
    with world.db.write() as tx:
        stopped = routers.stop(tx, root(), router, forced=False)
    world.result(stopped)
    return case


def on_a_vlan(world: World) -> Case:
    """A Direct network at rest, whose VLAN and addresses an administrator gave."""
    cloud = world.cloud()
    user = world.account()
    network_id = direct_network(world, user, cloud.zone)
    return Case(cloud, user, network_id, guest(world, user, cloud, network_id))


def in_use_on_a_vlan(world: World) -> Case:
    case = on_a_vlan(world)
    world.result(implement(world, case.network))
    return case


def runs_on_its_vlan(world: World, case: Case) -> None:
    is_running(world, case)
    assert net_of(world, case.network).vnet == 77
    assert world.left().addresses == ("192.0.2.10 Allocated", "192.0.2.11 Allocated")


def is_at_rest_on_its_vlan(world: World, case: Case) -> None:
    net = net_of(world, case.network)
    assert (net.state, net.vnet, net.router_id) == (NetworkState.SETUP, 77, None)
    assert world.left().addresses == ("192.0.2.10 Allocated",)


@workflow("test.network_ready")
def only_ready(network: int, vm: int) -> Parts:
    """A deploy that asks for nothing but its network."""
    yield network_ready(network=network, vm=vm)


def submit_ready(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        return submit(tx, only_ready(network=case.network, vm=case.guest), owner_of(case.user), command="test")


def submit_shutdown(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        networks.change(tx, case.network, idle_at=tx.now)
        net = networks.by_id(tx, case.network)
        plan = network_shutdown(network=case.network)
        return submit(tx, plan, owner_of(case.user), command="test", resource_key=net.key)


def submit_push(world: World, case: Case) -> JobRef:
    """Declare a change and claim its push, as the reconciler would."""
    with world.db.write() as tx:
        networks.change(tx, case.network, network_domain="changed.example")
        networks.bump(tx, case.network)
        assert push(tx, networks.by_id(tx, case.network))
        row = tx.one(select(job.c.id, job.c.uuid).where(job.c.open == 1, job.c.workflow == "network.configure"))
    assert row is not None
    return JobRef(row["id"], row["uuid"])


def is_halted(world: World, case: Case) -> None:
    router = router_of(world, case.network)
    assert router.state is VmState.STOPPED
    assert router.life is None
    assert not list(world.hosts.world.guests())


def is_routerless(world: World, case: Case) -> None:
    assert net_of(world, case.network).router_id is None
    assert not list(world.hosts.world.guests())


def is_at_rest(world: World, case: Case) -> None:
    net = net_of(world, case.network)
    assert (net.state, net.vnet, net.router_id) == (NetworkState.ALLOCATED, None, None)
    assert world.left().addresses == ("198.51.100.10 Allocated",)


def is_gone(world: World, case: Case) -> None:
    net = net_of(world, case.network)
    assert (net.state, net.live) == (NetworkState.DESTROY, False)
    left = world.left()
    assert (left.vnets, left.addresses, left.guests) == ((), (), ())


def has_changed_domain(world: World, case: Case) -> None:
    net = net_of(world, case.network)
    if net.refused == net.desired:
        assert net.failure
        return
    if is_lost(world, case):
        return
    is_running(world, case)
    assert config_of(world, router_of(world, case.network).name).domain == "changed.example"


def with_address(world: World) -> Case:
    case = in_use(world)
    world.result(command(add_address)(world, case))
    return case


def add_address(tx: Tx, case: Case, _router: int) -> str:
    return public_ip.associate(
        tx, case.user, zone_id=case.cloud.zone, network_id=case.network, account_name=None, domain_id=None
    )[0]


def shows_addresses(world: World, case: Case, count: int) -> None:
    if is_lost(world, case):
        return
    is_running(world, case)
    assert len(config_of(world, router_of(world, case.network).name).public) == count


SOUND = [
    Soundness("network.implement", prepare=at_rest, submit=lambda w, c: implement(w, c.network), holds=is_running),
    Soundness(
        "network.implement",
        prepare=on_a_vlan,
        submit=lambda w, c: implement(w, c.network),
        holds=runs_on_its_vlan,
    ),
    Soundness(
        "network.shutdown",
        prepare=in_use_on_a_vlan,
        submit=submit_shutdown,
        holds=is_at_rest_on_its_vlan,
        restores=False,
    ),
    Soundness("test.network_ready", prepare=at_rest, submit=submit_ready, holds=is_running, restores=False),
    Soundness(
        "network.configure",
        prepare=in_use,
        submit=submit_push,
        holds=has_changed_domain,
        restores=False,
        may_succeed=True,
    ),
    Soundness("network.shutdown", prepare=in_use, submit=submit_shutdown, holds=is_at_rest, restores=False),
    Soundness(
        "network.restart",
        prepare=in_use,
        submit=command(lambda tx, c, _: network_service.restart(tx, c.user, c.network, cleanup=True)),
        holds=is_running,
        restores=False,
    ),
    Soundness(
        "network.delete",
        prepare=without_guest,
        submit=command(lambda tx, c, _: network_service.delete(tx, c.user, c.network)),
        holds=is_gone,
        restores=False,
    ),
    Soundness(
        "network.update",
        prepare=without_guest,
        submit=command(
            lambda tx, c, _: network_service.update(
                tx, c.user, c.network, name="new", display_text=None, tags=None, network_domain="changed.example"
            )
        ),
        holds=has_changed_domain,
    ),
    Soundness(
        "router.start",
        prepare=halted,
        submit=command(lambda tx, c, router: routers.start(tx, root(), router)),
        holds=is_running,
    ),
    Soundness(
        "router.stop",
        prepare=in_use,
        submit=command(lambda tx, c, router: routers.stop(tx, root(), router, forced=False)),
        holds=is_halted,
        restores=False,
    ),
    Soundness(
        "router.reboot",
        prepare=in_use,
        submit=command(lambda tx, c, router: routers.reboot(tx, root(), router)),
        holds=is_running,
        restores=False,
    ),
    Soundness(
        "router.destroy",
        prepare=in_use,
        submit=command(lambda tx, c, router: routers.destroy(tx, root(), router)),
        holds=is_routerless,
        restores=False,
    ),
    Soundness(
        "public_ip.associate",
        prepare=in_use,
        submit=command(add_address),
        holds=lambda w, c: shows_addresses(w, c, 2),
    ),
    Soundness(
        "public_ip.disassociate",
        prepare=with_address,
        submit=command(
            lambda tx, c, _: public_ip.disassociate(tx, c.user, address_of(tx, c.network, source_nat=False))
        ),
        holds=lambda w, c: shows_addresses(w, c, 1),
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("sound", SOUND, ids=lambda sound: f"{sound.workflow}-{sound.prepare.__name__}")
def test_it_is_sound(sound: Soundness[Case], scenario: Scenario) -> None:
    sound.check(scenario)
