"""Routers run, and run what the database declares: dead ones are started again, changed configs are pushed,
and drift is found and declared a change."""

from functools import partial

import structlog
from sqlalchemy import select

from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import network as networks
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import network_config
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.vm import VmState
from pileus.server.elements import virtual_router
from pileus.server.jobs.reconciler import reconciler
from pileus.server.workflows.network_configure import drifted, push
from pileus.server.workflows.router_lost import KIND, needed, revive

log = structlog.get_logger(__name__)

DRIFT = "network-drift"

_running = network_config.join(vm, vm.c.id == network_config.c.router_id)


@reconciler(virtual_router.RECONCILER, period_seconds=10)
def push_configs(db: Database) -> None:
    """Start routers again that guests need, and push every config that a running router has not got yet.

    One push per network at a time.
    """
    with db.read() as tx:
        waiting, dead = _unpushed(tx), needed(tx)
    for network_id in dead:
        db.run(partial(revive, network_id=network_id))
    for network_id in waiting:
        db.run(partial(_push, network_id=network_id))


@reconciler(DRIFT, period_seconds=600)
def find_drift(db: Database) -> None:
    """Compare what running routers said they run with the database, and free claims whose push has vanished."""
    with db.read() as tx:
        suspects = _settled(tx)
    for network_id, fingerprint in suspects:
        with db.read() as tx:
            net = networks.by_id(tx, network_id)
            wrong = net.applied == net.desired and drifted(tx, net, fingerprint)
        if wrong:
            log.warning("a router runs another config than declared", network=net.uuid)
            db.run(partial(virtual_router.changed, network_id=network_id))
    db.run(_free_abandoned)


def _push(tx: Tx, *, network_id: int) -> None:
    push(tx, networks.by_id(tx, network_id))


def _unpushed(tx: Tx) -> list[int]:
    return _UNPUSHED.scalars(tx)


_UNPUSHED = Prepared(
    select(network_config.c.network_id)
    .select_from(_running)
    .where(
        network_config.c.desired > network_config.c.applied,
        network_config.c.desired > network_config.c.refused,
        network_config.c.pushing == 0,
        vm.c.state == str(VmState.RUNNING),
    )
    .order_by(network_config.c.network_id)
)


def _settled(tx: Tx) -> list[tuple[int, str]]:
    rows = tx.all(
        select(network_config.c.network_id, network_config.c.applied_fingerprint)
        .select_from(_running)
        .where(
            network_config.c.desired == network_config.c.applied,
            network_config.c.applied_fingerprint.is_not(None),
            vm.c.state == str(VmState.RUNNING),
        )
        .order_by(network_config.c.network_id)
    )
    return [(row["network_id"], row["applied_fingerprint"]) for row in rows]


def _free_abandoned(tx: Tx) -> None:
    for row in tx.all(select(network_config).where(network_config.c.pushing > 0)):
        open_push = select(job.c.id).where(
            job.c.open == 1,
            job.c.instance_kind == KIND,
            job.c.instance_id == row["network_id"],
        )
        if tx.scalar(open_push.limit(1)) is None:
            networks.change_config(tx, row["network_id"], pushing=0)
