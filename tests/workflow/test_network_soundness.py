"""Every workflow on networks and routers: whatever goes wrong where, it ends as it must and leaves nothing behind."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from pileus.server.db.queries import network as networks
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import port_forwarding_rule
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.network import NetworkState
from pileus.server.domain.vm import VmState
from pileus.server.jobs.plan import Parts, workflow
from pileus.server.jobs.submit import JobRef, submit
from pileus.server.services import network as network_service
from pileus.server.services import port_forwarding, public_ip
from pileus.server.services import router as routers
from pileus.server.workflows.network_configure import push
from pileus.server.workflows.network_ready import network_ready
from pileus.server.workflows.network_shutdown import network_shutdown
from pileus.testing import World
from pileus.testing.builders import Cloud, root
from pileus.testing.networks import (
    guest,
    implement,
    net_of,
    owner_of,
    router_of,
    running_network,
    virtual_network,
)
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness
from pileus.wire.router import RouterConfig


@dataclass(frozen=True)
class Case:
    """A cloud with an account, its network and a stopped guest on it."""

    cloud: Cloud
    user: Caller
    network: int
    guest: int


def at_rest(world: World) -> Case:
    cloud = world.cloud()
    user = world.account()
    network = virtual_network(world, user, cloud.zone)
    return Case(cloud, user, network, guest(world, user, cloud, network))


def in_use(world: World) -> Case:
    case = at_rest(world)
    world.result(implement(world, case.network))
    return case


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


@workflow("test.network_ready")
def only_ready(network: int, vm: int) -> Parts:
    """A deploy that asks for nothing but its network."""
    yield network_ready(network=network, vm=vm)


def submit_ready(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        return submit(tx, only_ready(network=case.network, vm=case.guest), owner_of(case.user), command="test")


def command(act: Callable[[Tx, Case, int], str]) -> Callable[[World, Case], JobRef]:
    """Submit by what a service does; it is given the router's key, 0 without a router."""

    def submit_it(world: World, case: Case) -> JobRef:
        router = net_of(world, case.network).router_id or 0
        with world.db.write() as tx:
            uuid = act(tx, case, router)
        return JobRef(world.job(uuid)["id"], uuid)

    return submit_it


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


def is_running(world: World, case: Case) -> None:
    net, router = net_of(world, case.network), router_of(world, case.network)
    assert net.state is NetworkState.IMPLEMENTED
    assert net.applied == net.desired
    assert router.runs
    assert config_of(world, router.name).generation == net.applied


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


def config_of(world: World, name: str) -> RouterConfig:
    """What a simulated router runs."""
    config = next(found.config for _, found in world.hosts.world.guests() if found.name == name)
    assert config is not None
    return config


def with_rule(world: World) -> Case:
    case = in_use(world)
    world.result(command(add_rule)(world, case))
    return case


def with_address(world: World) -> Case:
    case = in_use(world)
    world.result(command(add_address)(world, case))
    return case


def address_of(tx: Tx, network: int, *, source_nat: bool) -> int:
    return next(a.id for a in public_ips.of_network(tx, network) if a.is_source_nat is source_nat)


def add_address(tx: Tx, case: Case, _router: int) -> str:
    return public_ip.associate(
        tx, case.user, zone_id=case.cloud.zone, network_id=case.network, account_name=None, domain_id=None
    )[0]


def add_rule(tx: Tx, case: Case, _router: int) -> str:
    return port_forwarding.create(
        tx,
        case.user,
        public_ip_id=address_of(tx, case.network, source_nat=True),
        vm_id=case.guest,
        protocol="tcp",
        public_port=8080,
        public_end_port=None,
        private_port=80,
        private_end_port=None,
        cidrs=(),
        open_firewall=True,
    )[0]


def delete_rule(tx: Tx, case: Case, _router: int) -> str:
    rule = tx.scalar(select(port_forwarding_rule.c.id).where(port_forwarding_rule.c.live == 1))
    return port_forwarding.delete(tx, case.user, rule)


def is_lost(world: World, case: Case) -> bool:
    """Whether the host said that it has no such router: then it rests, for nobody runs who needs it."""
    if net_of(world, case.network).failure != "refused as missing":
        return False
    assert router_of(world, case.network).state is VmState.STOPPED
    return True


def forwards(world: World, case: Case, count: int) -> None:
    if is_lost(world, case):
        return
    is_running(world, case)
    assert len(config_of(world, router_of(world, case.network).name).port_forwards) == count


def shows_addresses(world: World, case: Case, count: int) -> None:
    if is_lost(world, case):
        return
    is_running(world, case)
    assert len(config_of(world, router_of(world, case.network).name).public) == count


SOUND = [
    Soundness("network.implement", prepare=at_rest, submit=lambda w, c: implement(w, c.network), holds=is_running),
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
    Soundness("port_forwarding.create", prepare=in_use, submit=command(add_rule), holds=lambda w, c: forwards(w, c, 1)),
    Soundness(
        "port_forwarding.delete", prepare=with_rule, submit=command(delete_rule), holds=lambda w, c: forwards(w, c, 0)
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("sound", SOUND, ids=lambda sound: sound.workflow)
def test_it_is_sound(sound: Soundness[Case], scenario: Scenario) -> None:
    sound.check(scenario)
