"""Destroyed guests are expunged when their delay is over."""

from pileus.server.config import keys, value
from pileus.server.db.queries import vm as vms
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.account import SYSTEM_USER
from pileus.server.jobs.reconciler import reconciler
from pileus.server.jobs.submit import Owner, submit
from pileus.server.workflows.vm_destroy import expunge_vm
from pileus.server.workflows.vm_record import KIND


@reconciler("vm-expunge", period_seconds=10.0)
def expunge(db: Database) -> None:
    """Submit a job for each guest that is due, `expunge.workers` at a time at most."""
    db.run(_expunge)


def _expunge(tx: Tx) -> None:
    room = value(tx, keys.expunge_workers) - vms.open_jobs(tx, "vm.expunge")
    if room <= 0:
        return
    for row in vms.to_expunge(tx, destroyed_before=_last_look(tx) - 1000 * value(tx, keys.expunge_delay), limit=room):
        submit(
            tx,
            expunge_vm(vm=row["id"]),
            Owner(row["account_id"], row["domain_id"], SYSTEM_USER),
            command="expungeVirtualMachine",
            instance_kind=KIND,
            instance_id=row["id"],
            resource_key=f"vm:{row['id']}",
        )


def _last_look(tx: Tx) -> int:
    """The last multiple of `expunge.interval`: a guest is expunged at the first one after its delay."""
    interval_ms = 1000 * value(tx, keys.expunge_interval)
    return tx.now - tx.now % interval_ms
