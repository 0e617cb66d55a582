"""Stopping and removing a router, and the jobs of the router commands. All run under the network's resource key."""

from pileus.server.db.queries import network as networks
from pileus.server.db.queries import router as routers
from pileus.server.db.queries.router import Router
from pileus.server.db.tables.vm import vm
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.host import HostState
from pileus.server.domain.vm import VM, VmState
from pileus.server.events import types
from pileus.server.hosts import operations
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.ask import HostRefused, make_sure
from pileus.server.workflows.network_implement import remove_router
from pileus.server.workflows.router_start import end_life, happened, start_router
from pileus.wire.operations import StopRouter


@workflow("router.start")
def router_start(network: int, router: int) -> Parts:
    """startRouter."""
    yield start_router(network)
    yield announce_router(network=network, router=router, event=types.ROUTER_START)


@workflow("router.stop")
def router_stop(network: int, router: int, *, forced: bool) -> Parts:
    """stopRouter."""
    yield halt_router(network=network, forced=forced)
    yield keep_halted(network=network)
    yield announce_router(network=network, router=router, event=types.ROUTER_STOP)


@workflow("router.reboot")
def router_reboot(network: int, router: int) -> Parts:
    """rebootRouter: a new life with the whole config."""
    yield halt_router(network=network, forced=False)
    yield start_router(network)
    yield announce_router(network=network, router=router, event=types.ROUTER_REBOOT)


@workflow("router.destroy")
def router_destroy(network: int, router: int) -> Parts:
    """destroyRouter: the network gets a new one when a guest needs it."""
    yield halt_router(network=network, forced=False)
    yield keep_halted(network=network)
    yield announce_router(network=network, router=router, event=types.ROUTER_DESTROY)
    yield drop_router(network=network)


@step("router.halt")
def halt_router(ctx: StepContext, *, network: int, forced: bool) -> None:
    """Make sure the network's router does not run; nothing when it has no life."""
    halt(ctx, network, forced=forced)


@halt_router.undo
def unhalt_router(ctx: StepContext, *, network: int, forced: bool) -> None:
    """See `unhalt`."""
    unhalt(ctx, network)


@step("router.keep_halted")
def keep_halted(ctx: StepContext, *, network: int) -> None:
    """Nobody starts it again until a guest that starts asks for it."""
    networks.change_config(ctx.tx, network, halted=1)


@keep_halted.undo
def unkeep(ctx: StepContext, *, network: int) -> None:
    """Guests may have it again."""
    networks.change_config(ctx.tx, network, halted=0)


@step("router.drop")
def drop_router(ctx: StepContext, *, network: int) -> None:
    """Remove the network's stopped router with its cards and addresses."""
    drop(ctx, network)


@step("router.announce")
def announce_router(ctx: StepContext, *, network: int, router: int, event: str) -> None:
    """The COMPLETED event of a router command."""
    known = routers.of_network(ctx.tx, network)
    if known is None or known.id != router:
        raise ResourceUnavailable("the router is gone")
    happened(
        ctx.tx, known, event, f"{_DONE[event]} router {known.name}", user_id=ctx.user_id, start_id=ctx.start_event_id
    )


_DONE = {
    types.ROUTER_START: "Started",
    types.ROUTER_STOP: "Stopped",
    types.ROUTER_REBOOT: "Rebooted",
    types.ROUTER_DESTROY: "Destroyed",
}


def halt(ctx: StepContext, network: int, *, forced: bool = False) -> None:
    """Make sure the network's router does not run. With `forced`, a host that is away is not waited for: the
    operation reaches it when it comes back, before anything else that is asked about the router.
    """
    router = routers.of_network(ctx.tx, network)
    if router is None or router.life is None:
        return
    transition(ctx.tx, vm, router.id, VM, VmState.STOPPING, frm=VmState.RUNNING)
    order = StopRouter(router.name, router.uuid, router.life.epoch)
    if forced and router.life.host_state is not HostState.UP:
        operations.request(
            ctx.tx,
            router.life.host_id,
            order,
            operation_id=ctx.operation_id("forced"),
            queue=router.queue,
            job_id=ctx.job_id,
        )
    else:
        _ask_to_stop(ctx, router, order)
    end_life(ctx.tx, router, router.life.epoch)
    if ctx.start_event_id is None:
        happened(ctx.tx, router, types.ROUTER_STOP, f"Stopped router {router.name}", user_id=ctx.user_id)


def unhalt(ctx: StepContext, network: int) -> None:
    """End a stop that began: whether the host acted is not known, so it is made sure that the router does not run."""
    router = routers.of_network(ctx.tx, network)
    if router is None or router.life is None or router.state is not VmState.STOPPING:
        return
    make_sure(ctx, router.life.host_id, StopRouter(router.name, router.uuid, router.life.epoch), queue=router.queue)
    end_life(ctx.tx, router, router.life.epoch)


def drop(ctx: StepContext, network: int) -> None:
    """Remove the network's router, which must have no life."""
    router = routers.of_network(ctx.tx, network)
    if router is None:
        return
    if router.life is not None:
        raise ResourceUnavailable(f"router {router.name} is {router.state}")
    remove_router(ctx.tx, network)
    networks.bump(ctx.tx, network)
    if ctx.start_event_id is None:
        happened(ctx.tx, router, types.ROUTER_DESTROY, f"Destroyed router {router.name}", user_id=ctx.user_id)


def _ask_to_stop(ctx: StepContext, router: Router, order: StopRouter) -> None:
    if router.life is None:
        return
    try:
        make_sure(ctx, router.life.host_id, order, queue=router.queue)
    except HostRefused as refused:
        raise ResourceUnavailable(f"router {router.name} could not be stopped: {refused.refusal.text}") from refused
