"""What a guest needs of a network before it starts: implemented, its router running, its own lease applied."""

from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import router as routers
from pileus.server.db.queries.network import Net
from pileus.server.domain.caller import Owner
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.network import NetworkState
from pileus.server.elements import virtual_router
from pileus.server.jobs.children import child, result_of
from pileus.server.jobs.context import Nap, StepContext
from pileus.server.jobs.plan import step
from pileus.server.jobs.reconciler import trigger
from pileus.server.workflows.network_implement import network_implement

TRIES = 5
"""How many times in a row a router may die right after it was started, before the guest gives up."""


@step("network.ready")
def network_ready(ctx: StepContext, *, network: int, vm: int) -> None:
    """Nap until the network serves this guest; a child job implements it when need be.

    Raises the child's error, and `ResourceUnavailable` when the router rejects the config for good.
    """
    if not networks.use(ctx.tx, network):
        raise ResourceUnavailable("the network is gone")
    net = networks.by_id(ctx.tx, network)
    router = routers.of_network(ctx.tx, network)
    if net.state is not NetworkState.IMPLEMENTED or router is None or not router.runs:
        for n in range(TRIES):
            job = child(
                ctx,
                network_implement(network=network),
                command="network.implement",
                label=f"net{network}.{n}",
                resource_key=net.key,
                instance_kind="Network",
                instance_id=network,
                owner=Owner(net.account_id, net.domain_id, ctx.user_id),
            )
            result_of(ctx, job.id)
        raise ResourceUnavailable(f"the router of network {net.name} does not stay up")
    await_applied(ctx, net, nics.generation_of(ctx.tx, network, vm))


@network_ready.undo
def stay(ctx: StepContext, *, network: int, vm: int) -> None:
    """Nothing: a network without guests is shut down by garbage collection, and another guest may use it by now."""


def await_applied(ctx: StepContext, net: Net, generation: int) -> None:
    """Nap until the running router of a network has applied the generation.

    `ResourceUnavailable` when the router rejected it, or a later one, for good.
    """
    if net.applied >= generation:
        return
    if net.refused >= generation:
        raise ResourceUnavailable(f"the router of network {net.name} rejects its config: {net.failure}")
    trigger(ctx.tx, virtual_router.RECONCILER)
    raise Nap(topic=net.key)


def await_delivered(ctx: StepContext, network: int, generation: int) -> None:
    """Like `await_applied`; nothing to wait for while no router runs: the next one starts with the whole config."""
    router = routers.of_network(ctx.tx, network)
    if router is not None and router.runs:
        await_applied(ctx, networks.by_id(ctx.tx, network), generation)
