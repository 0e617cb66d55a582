"""deleteNetwork: shut down what runs, then release VLAN, addresses, rules and ranges. 536 while guests have cards.

New guests may come until the last step, which looks again: then the job fails and the network stays.
"""

from sqlalchemy import select

from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries import rule as rules
from pileus.server.db.queries import vlan_ip_range as ranges
from pileus.server.db.tables.network import network as network_table
from pileus.server.db.tables.network import vlan_ip_range
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ResourceInUse
from pileus.server.domain.network import NETWORK, NetworkState
from pileus.server.events import types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.network_implement import release_address
from pileus.server.workflows.network_restart import tell
from pileus.server.workflows.network_shutdown import quit_router, quit_vnet, resume


@workflow("network.delete")
def network_delete(network: int) -> Parts:
    """Shut down and remove a network without guests."""
    yield begin_delete(network=network)
    yield quit_router(network=network)
    yield quit_vnet(network=network)
    yield remove_network(network=network)


@step("network.begin_delete")
def begin_delete(ctx: StepContext, *, network: int) -> None:
    """Shutdown, if it is implemented and no guest has a card on it."""
    networks.use(ctx.tx, network)
    refuse_guests(ctx.tx, network)
    transition(ctx.tx, network_table, network, NETWORK, NetworkState.SHUTDOWN, frm=NetworkState.IMPLEMENTED)


@begin_delete.undo
def undelete(ctx: StepContext, *, network: int) -> None:
    """As after a shutdown that failed."""
    resume(ctx, network=network)


@step("network.remove")
def remove_network(ctx: StepContext, *, network: int) -> None:
    """Release what the network holds, and take it out of use."""
    net = networks.by_id(ctx.tx, network)
    if not net.live:
        return
    networks.use(ctx.tx, network)
    refuse_guests(ctx.tx, network)
    for held in public_ips.of_network(ctx.tx, network, releasing=True):
        release_address(ctx.tx, net, held, user_id=ctx.user_id)
    rules.forget_all(ctx.tx, "network_id", network)
    mine = select(vlan_ip_range.c.id).where(vlan_ip_range.c.network_id == network, vlan_ip_range.c.live == 1)
    for range_id in list(ctx.tx.execute(mine).scalars()):
        ranges.remove(ctx.tx, range_id)
    transition(
        ctx.tx,
        network_table,
        network,
        NETWORK,
        NetworkState.DESTROY,
        live=None,
        on_demand_key=None,
        removed_at=ctx.tx.now,
    )
    tell(ctx, net, types.NETWORK_DELETE)


def refuse_guests(tx: Tx, network: int) -> None:
    """`ResourceInUse` while guests that are not expunged have cards on the network."""
    guests = nics.guests_on(tx, network)
    if guests:
        raise ResourceInUse(f"the network still has {guests} virtual machines that are not expunged")
