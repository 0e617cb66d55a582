"""Statistics do not outlive what they tell of: those of guests that do not run are dropped."""

from sqlalchemy import delete, select

from pileus.server.db.tables.vm import vm, vm_stats
from pileus.server.db.transaction import Database
from pileus.server.domain.vm import VmState
from pileus.server.jobs.reconciler import reconciler


@reconciler("vm-stats", period_seconds=300.0)
def drop_stale(db: Database) -> None:
    """Forget the statistics of every guest that is not running: its counters begin anew with its next life."""
    running = select(vm.c.id).where(vm.c.live == 1, vm.c.state == str(VmState.RUNNING))
    db.run(lambda tx: tx.execute(delete(vm_stats).where(vm_stats.c.vm_id.not_in(running))))
