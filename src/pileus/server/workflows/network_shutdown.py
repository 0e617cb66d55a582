"""A network that no running guest uses is shut down: its router and its VLAN go, its source NAT address stays.

It comes back on demand. The address stays so that guests keep their face to the outside over idle times. When a
shutdown fails, a network that still has its router is Implemented again; garbage collection tries again later.
"""

from sqlalchemy import update

from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.tables.network import network as network_table
from pileus.server.db.transition import transition
from pileus.server.domain.network import NETWORK, NetworkState
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.network_implement import free_vnet, lay_down
from pileus.server.workflows.router_lost import ACTIVE
from pileus.server.workflows.router_stop import drop, halt, unhalt


@workflow("network.shutdown")
def network_shutdown(network: int) -> Parts:
    """Shut an idle network down, or finish a shutdown that failed."""
    yield begin_shutdown(network=network)
    yield quit_router(network=network)
    yield quit_vnet(network=network)
    yield rest(network=network)


@step("network.begin_shutdown")
def begin_shutdown(ctx: StepContext, *, network: int) -> None:
    """Shutdown, if the network is still idle: the row is locked, so no guest can come to need it meanwhile."""
    idle = update(network_table).where(
        network_table.c.id == network,
        network_table.c.state == str(NetworkState.IMPLEMENTED),
        network_table.c.idle_at.is_not(None),
    )
    held = ctx.tx.execute(idle.values(idle_at=network_table.c.idle_at)).rowcount
    if held and not nics.guests_on(ctx.tx, network, states=ACTIVE):
        transition(ctx.tx, network_table, network, NETWORK, NetworkState.SHUTDOWN, frm=NetworkState.IMPLEMENTED)


@begin_shutdown.undo
def resume(ctx: StepContext, *, network: int) -> None:
    """Implemented again while it has a router; without one, what is left of it goes too."""
    net = networks.by_id(ctx.tx, network)
    if net.state is not NetworkState.SHUTDOWN:
        return
    if net.router_id is not None:
        transition(ctx.tx, network_table, network, NETWORK, NetworkState.IMPLEMENTED, frm=NetworkState.SHUTDOWN)
        return
    free_vnet(ctx.tx, network)
    lay_down(ctx.tx, network)


@step("network.quit_router")
def quit_router(ctx: StepContext, *, network: int) -> None:
    """Stop and remove the router of a network in Shutdown."""
    if networks.by_id(ctx.tx, network).state is not NetworkState.SHUTDOWN:
        return
    halt(ctx, network)
    drop(ctx, network)


@quit_router.undo
def unquit_router(ctx: StepContext, *, network: int) -> None:
    """See `unhalt`."""
    unhalt(ctx, network)


@step("network.quit_vnet")
def quit_vnet(ctx: StepContext, *, network: int) -> None:
    """Give back the VLAN of a network in Shutdown."""
    if networks.by_id(ctx.tx, network).state is NetworkState.SHUTDOWN:
        free_vnet(ctx.tx, network)


@step("network.rest")
def rest(ctx: StepContext, *, network: int) -> None:
    """Back to what it was before it was implemented."""
    lay_down(ctx.tx, network)
