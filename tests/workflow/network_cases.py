"""A running network with a guest, for soundness tests of what its router does."""

from collections.abc import Callable
from dataclasses import dataclass

from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.network import NetworkState
from pileus.server.domain.vm import VmState
from pileus.server.jobs.submit import JobRef
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.networks import guest, implement, net_of, router_of, virtual_network
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


def command(act: Callable[[Tx, Case, int], str]) -> Callable[[World, Case], JobRef]:
    """Submit by what a service does; it is given the router's key, 0 without a router."""

    def submit_it(world: World, case: Case) -> JobRef:
        router = net_of(world, case.network).router_id or 0
        with world.db.write() as tx:
            uuid = act(tx, case, router)
        return JobRef(world.job(uuid)["id"], uuid)

    return submit_it


def is_running(world: World, case: Case) -> None:
    net, router = net_of(world, case.network), router_of(world, case.network)
    assert net.state is NetworkState.IMPLEMENTED
    assert net.applied == net.desired
    assert router.runs
    assert config_of(world, router.name).generation == net.applied


def config_of(world: World, name: str) -> RouterConfig:
    """What a simulated router runs."""
    config = next(found.config for _, found in world.hosts.world.guests() if found.name == name)
    assert config is not None
    return config


def address_of(tx: Tx, network: int, *, source_nat: bool) -> int:
    return next(a.id for a in public_ips.of_network(tx, network) if a.is_source_nat is source_nat)


def is_lost(world: World, case: Case) -> bool:
    """Whether the host said that it has no such router: then it rests, for nobody runs who needs it."""
    if net_of(world, case.network).failure != "refused as missing":
        return False
    assert router_of(world, case.network).state is VmState.STOPPED
    return True
