"""Lives of guests that are to end do end, also when the job that asked for it is over."""

from pileus.server.db.transaction import Database
from pileus.server.jobs.reconciler import reconciler
from pileus.server.services import vm_sync


@reconciler("vm-sync", period_seconds=60.0)
def sync(db: Database) -> None:
    """Ask the hosts of such lives, and note what they answered; ask again for what they refused to clear away."""
    db.run(vm_sync.finish_endings)
    db.run(vm_sync.clear_away_again)
