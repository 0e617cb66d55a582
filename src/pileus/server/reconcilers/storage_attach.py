"""Invariant: hosts that are up use the primary storage of their cluster, and no host uses a pool that was removed."""

from pileus.server.db.transaction import Database
from pileus.server.jobs.reconciler import reconciler
from pileus.server.services import storage_pool


@reconciler("storage-attach", period_seconds=300)
def run(db: Database) -> None:
    """Begin what is missing: an attach that failed is tried again with every period."""
    db.run(storage_pool.converge)
