"""restartNetwork: the whole config goes to the router again, or (with cleanup) to a new router.

The VLAN stays, because guests are attached to it. When a new router cannot be had, the network stays Implemented
without one, and the next guest that starts asks for it again.
"""

from pileus.server.db.queries import network as networks
from pileus.server.db.queries import router as routers
from pileus.server.db.queries.network import Net
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.network import NetworkState
from pileus.server.events import record, types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.network_implement import make_router
from pileus.server.workflows.network_ready import await_applied, await_delivered
from pileus.server.workflows.router_start import start_router
from pileus.server.workflows.router_stop import drop_router, halt_router


@workflow("network.restart")
def network_restart(network: int, generation: int, *, cleanup: bool) -> Parts:
    """Bring the config back to what is declared; `generation` is the one declared with the command."""
    yield check_implemented(network=network)
    if cleanup:
        yield halt_router(network=network, forced=False)
        yield drop_router(network=network)
    yield make_router(network=network)
    yield start_router(network)
    yield await_config(network=network, generation=generation)
    yield announce_network(network=network, event=types.NETWORK_RESTART)


@workflow("network.update")
def network_update(network: int, generation: int) -> Parts:
    """updateNetwork: the row was changed with the command; what the router must know of it reaches it here."""
    yield deliver_config(network=network, generation=generation)
    yield announce_network(network=network, event=types.NETWORK_UPDATE)


@step("network.deliver_config")
def deliver_config(ctx: StepContext, *, network: int, generation: int) -> None:
    """Nap until the router, if one runs, has applied the generation."""
    await_delivered(ctx, network, generation)


@step("network.check_implemented")
def check_implemented(ctx: StepContext, *, network: int) -> None:
    """Only an implemented network can be restarted."""
    net = networks.by_id(ctx.tx, network)
    if net.state is not NetworkState.IMPLEMENTED:
        raise ResourceUnavailable(f"network {net.name} is {net.state}: only an Implemented one can be restarted")


@step("network.await_config")
def await_config(ctx: StepContext, *, network: int, generation: int) -> None:
    """Nap until the router has applied the generation."""
    router = routers.of_network(ctx.tx, network)
    net = networks.by_id(ctx.tx, network)
    if router is None or not router.runs:
        raise ResourceUnavailable(f"the router of network {net.name} does not run")
    await_applied(ctx, net, generation)


@step("network.announce")
def announce_network(ctx: StepContext, *, network: int, event: str) -> None:
    """The COMPLETED event of a network command."""
    tell(ctx, networks.by_id(ctx.tx, network), event)


def tell(ctx: StepContext, net: Net, event: str) -> None:
    """Write the COMPLETED event of a network command."""
    record(
        ctx.tx,
        type=event,
        description=f"{_DONE[event]} network {net.name}",
        account_id=net.account_id,
        domain_id=net.domain_id,
        user_id=ctx.user_id,
        resource_kind="Network",
        resource_id=net.id,
        zone_id=net.zone_id,
        start_id=ctx.start_event_id,
    )


_DONE = {
    types.NETWORK_RESTART: "Restarted",
    types.NETWORK_DELETE: "Deleted",
    types.NETWORK_UPDATE: "Updated",
}
