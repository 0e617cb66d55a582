"""Routers that died: a router that guests need runs again, unless an administrator halted it."""

from sqlalchemy import exists, or_, select

from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import router as routers
from pileus.server.db.tables.host import host
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import network, network_config, nic
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT, SYSTEM_USER
from pileus.server.domain.caller import Owner
from pileus.server.domain.host import HostState
from pileus.server.domain.network import NetworkState
from pileus.server.domain.vm import LifeState, VmKind, VmState
from pileus.server.elements import virtual_router
from pileus.server.events import types
from pileus.server.hosts import operations
from pileus.server.jobs.reconciler import trigger
from pileus.server.jobs.submit import submit
from pileus.server.workflows.network_implement import network_implement
from pileus.server.workflows.router_start import end_life, happened
from pileus.wire.operations import StartRouter, StopRouter

ACTIVE = (VmState.STARTING, VmState.RUNNING, VmState.STOPPING, VmState.MIGRATING, VmState.UNKNOWN)
"""States of guests that use their networks."""

PAUSE_MS = 60_000
"""How long after a network's last job a dead router is tried again."""


def lost(tx: Tx, vm_id: int, *, epoch: int, why: str) -> bool:
    """End the router's life of this epoch, because its host says that it is not there.

    Only a router that was Running: one that is being started or stopped is in the hands of that job. False then.
    Its host is asked to take away what may be left of it.
    """
    router = routers.by_id(tx, vm_id)
    if router is None or router.life is None:
        return False
    if router.life.epoch == epoch and router.life.state is LifeState.PLANNED:
        # It began and ended before the job that starts it has looked: to that job the start has failed.
        operations.gainsay(tx, router.life.host_id, router.life.job_id, StartRouter.__name__, router.queue, why)
    if router.state is not VmState.RUNNING:
        return False
    if not end_life(tx, router, epoch):
        return False
    operations.request(
        tx,
        router.life.host_id,
        StopRouter(router.name, router.uuid, epoch),
        operation_id=f"lost.{router.uuid}.{epoch}",
        queue=router.queue,
    )
    happened(
        tx,
        router,
        types.ROUTER_STOP,
        f"Router {router.name} stopped by itself: {why}",
        user_id=SYSTEM_USER,
        level="WARN",
    )
    trigger(tx, virtual_router.RECONCILER)
    return True


def needed(tx: Tx) -> list[int]:
    """Networks whose router is stopped or on a dead host though active guests need it.

    Not those that a job has in hand, or has had a moment ago.
    """
    return [network_id for network_id in _NEEDED.scalars(tx) if not _in_hand(tx, network_id)]


_guest = vm.alias("guest")

_active = exists(
    select(nic.c.id)
    .select_from(nic.join(_guest, _guest.c.id == nic.c.vm_id))
    .where(
        nic.c.network_id == network.c.id,
        nic.c.live == 1,
        _guest.c.kind == str(VmKind.USER),
        _guest.c.state.in_([str(state) for state in (VmState.RUNNING, VmState.MIGRATING)]),
    )
)

_NEEDED = Prepared(
    select(network.c.id)
    .select_from(
        network.join(network_config, network_config.c.network_id == network.c.id)
        .outerjoin(vm, vm.c.id == network_config.c.router_id)
        .outerjoin(host, host.c.id == vm.c.host_id)
    )
    .where(
        network.c.live == 1,
        network.c.state == str(NetworkState.IMPLEMENTED),
        network_config.c.halted == 0,
        or_(vm.c.id.is_(None), vm.c.state == str(VmState.STOPPED), host.c.state == str(HostState.DOWN)),
        _active,
    )
    .order_by(network.c.id)
)


def revive(tx: Tx, network_id: int) -> None:
    """Submit the job that has the network's router running again."""
    net = networks.by_id(tx, network_id)
    if net.state is not NetworkState.IMPLEMENTED or not nics.guests_on(tx, network_id, states=ACTIVE):
        return
    router = routers.of_network(tx, network_id)
    if router is not None:
        happened(tx, router, types.ROUTER_HA, f"Router {router.name} is started again", user_id=SYSTEM_USER)
    submit(
        tx,
        network_implement(network=network_id),
        Owner(SYSTEM_ACCOUNT, ROOT_DOMAIN, SYSTEM_USER),
        command="network.implement",
        instance_kind=KIND,
        instance_id=network_id,
        resource_key=net.key,
    )


KIND = "NetworkConfig"
"""What jobs of our own on a network work on. It is no public kind: lists show none of them to users."""


def _in_hand(tx: Tx, network_id: int) -> bool:
    mine = job.c.resource_key == f"network:{network_id}"
    if tx.scalar(select(job.c.id).where(job.c.open == 1, mine).limit(1)) is not None:
        return True
    recent = (job.c.open.is_(None), mine, job.c.completed_at > tx.now - PAUSE_MS)
    return tx.scalar(select(job.c.id).where(*recent).limit(1)) is not None
