"""Networks without running guests are shut down after `network.gc.wait`, at multiples of `network.gc.interval`.

They come back on demand. Shutdowns that failed half way are finished here too.
"""

from functools import partial

from sqlalchemy import bindparam, exists, select, update

from pileus.server.config import keys, value
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import network, nic
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT, SYSTEM_USER
from pileus.server.domain.caller import Owner
from pileus.server.domain.network import NetworkState
from pileus.server.domain.vm import VmKind
from pileus.server.jobs.reconciler import reconciler
from pileus.server.jobs.submit import submit
from pileus.server.workflows.network_shutdown import network_shutdown
from pileus.server.workflows.router_lost import ACTIVE, KIND


@reconciler("network-gc", period_seconds=10)
def collect_networks(db: Database) -> None:
    """Mark what has fallen idle, and shut down what has been idle for long enough."""
    for network_id in db.run(_idle_for_long):
        db.run(partial(_submit, network_id=network_id))


def _idle_for_long(tx: Tx) -> list[int]:
    _mark_idle(tx)
    return _due(tx)


def _mark_idle(tx: Tx) -> None:
    _USED_AGAIN.changed(tx)
    _IDLE_NOW.changed(tx, now=tx.now)


_in_use = exists(
    select(nic.c.id)
    .select_from(nic.join(vm, vm.c.id == nic.c.vm_id))
    .where(
        nic.c.network_id == network.c.id,
        nic.c.live == 1,
        vm.c.kind == str(VmKind.USER),
        vm.c.state.in_([str(state) for state in ACTIVE]),
    )
)

_implemented = update(network).where(network.c.live == 1, network.c.state == str(NetworkState.IMPLEMENTED))

_USED_AGAIN = Prepared(_implemented.where(network.c.idle_at.is_not(None), _in_use).values(idle_at=None))

_IDLE_NOW = Prepared(_implemented.where(network.c.idle_at.is_(None), ~_in_use).values(idle_at=bindparam("now")))


def _due(tx: Tx) -> list[int]:
    wait_ms = value(tx, keys.network_gc_wait) * 1000
    interval_ms = value(tx, keys.network_gc_interval) * 1000
    return [
        row["id"]
        for row in _IDLE.all(tx, idle_before=tx.now - wait_ms)
        if row["state"] == NetworkState.SHUTDOWN or tx.now >= _next_look(row["idle_at"] + wait_ms, interval_ms)
    ]


_IDLE = Prepared(
    select(network.c.id, network.c.idle_at, network.c.state)
    .where(
        network.c.live == 1,
        (network.c.state == str(NetworkState.SHUTDOWN))
        | ((network.c.state == str(NetworkState.IMPLEMENTED)) & (network.c.idle_at <= bindparam("idle_before"))),
    )
    .order_by(network.c.id)
)


def _next_look(at_ms: int, interval_ms: int) -> int:
    """The first multiple of the interval that is not before an instant."""
    return -(-at_ms // interval_ms) * interval_ms


def _submit(tx: Tx, network_id: int) -> None:
    key = f"network:{network_id}"
    if tx.scalar(select(job.c.id).where(job.c.open == 1, job.c.resource_key == key).limit(1)) is not None:
        return
    submit(
        tx,
        network_shutdown(network=network_id),
        Owner(SYSTEM_ACCOUNT, ROOT_DOMAIN, SYSTEM_USER),
        command="network.shutdown",
        instance_kind=KIND,
        instance_id=network_id,
        resource_key=key,
    )
