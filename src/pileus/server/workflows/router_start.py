"""A virtual router comes to life: place it, start it with its whole config, announce it.

All of it runs under the network's resource key, so nobody else touches the router meanwhile. A router that runs
already is left alone, and an undo ends only a life that its own job planned.
"""

from pileus.server.config import keys, value
from pileus.server.db.queries import incarnation as incarnations
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import router as routers
from pileus.server.db.queries.router import Life, Router
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.vm import VM, LifeState, VmState
from pileus.server.elements import router_home, virtual_router
from pileus.server.events import record, types
from pileus.server.hosts import operations
from pileus.server.jobs.context import StepContext, TryElsewhere
from pileus.server.jobs.plan import Block, step, try_elsewhere
from pileus.server.jobs.reconciler import trigger
from pileus.server.jobs.submit import wake
from pileus.server.placement.demand import Demand
from pileus.server.placement.place import must_place
from pileus.server.workflows.ask import HostRefused, HostSilent, ask, make_sure
from pileus.wire.operations import Reason, RouterFacts, RouterSpec, StartRouter, StopRouter

KIND = "DomainRouter"
START_SECONDS = 300.0


def start_router(network: int) -> Block:
    """The steps that have the network's router running; hosts that fail are avoided in the next round."""
    return try_elsewhere(place_router(network=network), boot_router(network=network))


@step("router.place")
def place_router(ctx: StepContext, *, network: int) -> None:
    """Choose a host for a new life of the router and claim its capacity; nothing when the router has a life."""
    router = _of(ctx.tx, network)
    if router.life is not None and router.life.on_dead_host:
        abandon(ctx, router, router.life)
        router = _of(ctx.tx, network)
    if router.life is not None:
        return
    template_id = router_home.template_for(ctx.tx, router.zone_id)
    demand = Demand(
        name=f"router {router.name}",
        zone_id=router.zone_id,
        cpus=router.cpus,
        cpu_mhz=router.cpu_mhz,
        ram_mib=router_home.ram_mib(router.ram_mib, template_id),
    )
    place = must_place(ctx.tx, demand, avoid=ctx.avoid, seed=ctx.operation_id())
    if template_id != router.template_id:
        routers.change(ctx.tx, router.id, template_id=template_id)
    if not transition(ctx.tx, vm, router.id, VM, VmState.STARTING, frm=VmState.STOPPED):
        raise ResourceUnavailable(f"router {router.name} is {router.state} and cannot be started")
    incarnations.plan(
        ctx.tx,
        router.id,
        host_id=place.host_id,
        cpu_mhz=demand.claim_mhz,
        ram_mib=demand.ram_mib,
        job_id=ctx.job_id,
    )


@place_router.undo
def give_back(ctx: StepContext, *, network: int) -> None:
    """End the life that this job planned and return what it claimed."""
    router = routers.of_network(ctx.tx, network)
    if router is None or router.life is None or router.life.job_id != ctx.job_id:
        return
    end_life(ctx.tx, router, router.life.epoch)


@step("router.boot")
def boot_router(ctx: StepContext, *, network: int) -> None:
    """Have the host start the planned life with the network's whole config; nothing when the router runs."""
    router = _of(ctx.tx, network)
    life = router.life
    if life is None:
        raise ResourceUnavailable(f"router {router.name} has no place")
    if life.state is not LifeState.PLANNED:
        return
    generation = networks.by_id(ctx.tx, network).desired
    order = StartRouter(_spec(ctx.tx, router, life), virtual_router.config(ctx.tx, network, generation=generation))
    try:
        facts = ask(ctx, life.host_id, order, queue=router.queue, deadline_seconds=START_SECONDS)
    except HostRefused as refused:
        if refused.refusal.reason is Reason.REJECTED:
            raise ResourceUnavailable(f"router {router.name} rejects its config: {refused.refusal.text}") from refused
        raise TryElsewhere(f"host:{life.host_id}", refused.refusal.text) from refused
    except HostSilent as silent:
        raise TryElsewhere(f"host:{life.host_id}", "the host did not answer") from silent
    if not isinstance(facts, RouterFacts):
        raise TypeError(f"{facts} answers no StartRouter")
    _alive(ctx, router, life, facts)


@boot_router.undo
def unboot(ctx: StepContext, *, network: int) -> None:
    """Make sure the life that this job planned does not run; its end is left to the undo of its placement."""
    router = routers.of_network(ctx.tx, network)
    if router is None or router.life is None or router.life.job_id != ctx.job_id:
        return
    make_sure(
        ctx,
        router.life.host_id,
        StopRouter(router.name, router.uuid, router.life.epoch),
        queue=router.queue,
    )


def abandon(ctx: StepContext, router: Router, life: Life) -> None:
    """End a life on a host that is given up. Should the host come back, it is told to stop the router first of all."""
    operations.request(
        ctx.tx,
        life.host_id,
        StopRouter(router.name, router.uuid, life.epoch),
        operation_id=f"abandon.{router.uuid}.{life.epoch}",
        queue=router.queue,
        job_id=ctx.job_id,
    )
    end_life(ctx.tx, router, life.epoch)


def end_life(tx: Tx, router: Router, epoch: int) -> bool:
    """Record that a life is over: its capacity goes back, and the router is Stopped. False when it was over already."""
    life = incarnations.current(tx, router.id)
    if life is None or life.epoch != epoch:
        return False
    incarnations.over(tx, life)
    transition(tx, vm, router.id, VM, VmState.STOPPED)
    wake(tx, f"network:{router.network_id}")
    return True


def _spec(tx: Tx, router: Router, life: Life) -> RouterSpec:
    machine = router_home.machine(tx, router.zone_id, router.template_id)
    # What an account may send to and have from the outside: as its network's offering says, or the setting.
    offered_mbps = networks.rate_mbps(tx, router.network_id)
    public_mbps = value(tx, keys.network_throttling_rate) if offered_mbps is None else offered_mbps
    return RouterSpec(
        name=router.name,
        uuid=router.uuid,
        epoch=life.epoch,
        nics=nics.specs(tx, router.id, public_rate_mbps=public_mbps),
        cpus=router.cpus,
        cpu_mhz=router.cpu_mhz,
        ram_mib=life.ram_mib,
        machine=machine,
    )


def _alive(ctx: StepContext, router: Router, life: Life, facts: RouterFacts) -> None:
    tx = ctx.tx
    planned = incarnations.current(tx, router.id)
    if planned is None or planned.id != life.id or not incarnations.live(tx, planned):
        raise ResourceUnavailable(f"router {router.name} lost its place while it was starting")
    if not transition(tx, vm, router.id, VM, VmState.RUNNING, frm=VmState.STARTING):
        raise ResourceUnavailable(f"router {router.name} changed while it was starting")
    networks.change_config(
        tx,
        router.network_id,
        applied=facts.generation,
        applied_fingerprint=facts.fingerprint,
        pushing=0,
        halted=0,
        failure=None,
    )
    if ctx.start_event_id is None:
        happened(tx, router, types.ROUTER_START, f"Started router {router.name}", user_id=ctx.user_id)
    wake(tx, f"network:{router.network_id}")
    trigger(tx, virtual_router.RECONCILER)


def happened(
    tx: Tx, router: Router, type: str, text: str, *, user_id: int, start_id: int | None = None, level: str = "INFO"
) -> None:
    """Write an event about a router."""
    record(
        tx,
        type=type,
        description=text,
        account_id=router.account_id,
        domain_id=router.domain_id,
        user_id=user_id,
        level=level,
        resource_kind=KIND,
        resource_id=router.id,
        zone_id=router.zone_id,
        start_id=start_id,
    )


def _of(tx: Tx, network: int) -> Router:
    router = routers.of_network(tx, network)
    if router is None:
        raise ResourceUnavailable("the network has no router")
    return router
