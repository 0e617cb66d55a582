"""A changed config goes to a running router: one push, then what it answered is stored.

The reconciler `network-config` claims the push (`network_config.pushing`) and submits the job. A push that fails is
tried again with the reconciler's next round; one that the router rejects for good is not, until the config changes.
"""

from sqlalchemy import BigInteger, bindparam, select, update

from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import router as routers
from pileus.server.db.queries.network import Net
from pileus.server.db.queries.router import Life, Router
from pileus.server.db.tables.host import host_operation
from pileus.server.db.tables.network import network_config
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT, SYSTEM_USER
from pileus.server.domain.caller import Owner
from pileus.server.elements import virtual_router
from pileus.server.jobs.context import Nap, StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.jobs.reconciler import trigger
from pileus.server.jobs.submit import submit, wake
from pileus.server.workflows.ask import HostRefused, HostSilent, ask
from pileus.server.workflows.router_lost import KIND, lost
from pileus.wire.operations import AnyResult, ConfigureRouter, Reason, RouterFacts
from pileus.wire.router import fingerprint

PUSH_SECONDS = 120.0
PAUSES_SECONDS = (2.0, 10.0, 0.0)
"""How long a router that could not apply a config is left alone before it is asked again; after the last it rests
until the reconciler's next round."""

STALE_LEAP = 1000
"""How far the generation leaps when the router knows a newer one than we do (the database was restored)."""


def push(tx: Tx, net: Net) -> bool:
    """Claim the push of the network's desired generation and submit its job. False when there is nothing to push."""
    if _CLAIMING.changed(tx, the_network_id=net.id, desired=net.desired) != 1:
        return False
    submit(
        tx,
        network_configure(network=net.id, generation=net.desired),
        Owner(SYSTEM_ACCOUNT, ROOT_DOMAIN, SYSTEM_USER),
        command="network.configure",
        instance_kind=KIND,
        instance_id=net.id,
        deadline_seconds=5 * PUSH_SECONDS,
    )
    return True


_DESIRED = bindparam("desired", type_=BigInteger)

_CLAIMING = Prepared(
    update(network_config)
    .where(
        network_config.c.network_id == bindparam("the_network_id"),
        network_config.c.pushing == 0,
        network_config.c.desired == _DESIRED,
        network_config.c.applied < _DESIRED,
        network_config.c.refused < _DESIRED,
    )
    .values(pushing=_DESIRED)
)


@workflow("network.configure")
def network_configure(network: int, generation: int) -> Parts:
    """Bring one generation of a network's config to its router."""
    yield push_config(network=network, generation=generation)


@step("network.push_config")
def push_config(ctx: StepContext, *, network: int, generation: int) -> None:
    """Ask the router to apply the config, and store what it says."""
    net = networks.by_id(ctx.tx, network)
    if net.pushing != generation:
        return
    router = routers.of_network(ctx.tx, network)
    if router is None or router.life is None or not router.runs or net.applied >= generation:
        _settle(ctx.tx, network, generation)
        return
    try:
        facts = _ask(ctx, router, router.life, network, generation)
    except HostSilent as silent:
        _settle(ctx.tx, network, generation, failure=silent.text)
        trigger(ctx.tx, virtual_router.RECONCILER)
        return
    except HostRefused as refused:
        _refused(ctx, net, router, generation, refused)
        return
    if not isinstance(facts, RouterFacts):
        raise TypeError(f"{facts} answers no ConfigureRouter")
    _applied(ctx.tx, network, generation, facts)


@push_config.undo
def unclaim(ctx: StepContext, *, network: int, generation: int) -> None:
    """Let another push be claimed: a router that has applied this one takes the next all the same."""
    _settle(ctx.tx, network, generation)
    trigger(ctx.tx, virtual_router.RECONCILER)


def _ask(ctx: StepContext, router: Router, life: Life, network: int, generation: int) -> AnyResult:
    """The router's answer. A router that tried and could not is asked again, a little later each time."""

    def order() -> ConfigureRouter:
        return ConfigureRouter(router.name, life.epoch, virtual_router.config(ctx.tx, network, generation=generation))

    for n, pause_seconds in enumerate(PAUSES_SECONDS):
        label = f"e{life.epoch}.{n}"
        try:
            return ask(ctx, life.host_id, order, queue=router.queue, label=label, deadline_seconds=PUSH_SECONDS)
        except HostRefused as refused:
            if refused.refusal.reason not in (Reason.FAILED, Reason.NO_ROOM, Reason.UNREACHABLE):
                raise
            if n == len(PAUSES_SECONDS) - 1:
                raise
            answered = select(host_operation.c.answered_at).where(
                host_operation.c.operation_id == ctx.operation_id(label)
            )
            again_at = int(ctx.tx.scalar(answered)) + round(pause_seconds * 1000)
            if ctx.tx.now < again_at:
                raise Nap(ctx.until(again_at)) from refused
    raise ValueError("PAUSES_SECONDS is empty")


def _applied(tx: Tx, network: int, generation: int, facts: RouterFacts) -> None:
    _settle(tx, network, generation, applied=max(generation, facts.generation), applied_fingerprint=facts.fingerprint)
    wake(tx, f"network:{network}")
    trigger(tx, virtual_router.RECONCILER)


def _refused(ctx: StepContext, net: Net, router: Router, generation: int, refused: HostRefused) -> None:
    tx, reason, text = ctx.tx, refused.refusal.reason, refused.refusal.text
    if reason is Reason.REJECTED:
        _settle(tx, net.id, generation, refused=generation, failure=text)
        wake(tx, net.key)
    elif reason is Reason.STALE_EPOCH:
        _settle(tx, net.id, generation, desired=network_config.c.desired + STALE_LEAP, failure=text)
        trigger(tx, virtual_router.RECONCILER)
    else:
        _settle(tx, net.id, generation, failure=text)
        if reason is Reason.MISSING:
            lost(tx, router.id, epoch=router.life.epoch if router.life else 0, why=text)


def _settle(tx: Tx, network: int, generation: int, *, failure: str | None = None, **values: object) -> None:
    mine = (network_config.c.network_id == network, network_config.c.pushing == generation)
    tx.execute(update(network_config).where(*mine).values(pushing=0, failure=failure, **values))


def drifted(tx: Tx, net: Net, applied_fingerprint: str) -> bool:
    """Whether the database says something else than what the router runs, though nobody declared a change."""
    return fingerprint(virtual_router.config(tx, net.id, generation=net.applied)) != applied_fingerprint
