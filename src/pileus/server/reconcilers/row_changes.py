"""The log of changed rows stays short: who has stopped reading it before its oldest entry reads everything anew."""

from pileus.server.db import changes
from pileus.server.db.transaction import Database
from pileus.server.jobs.reconciler import reconciler

KEEP = 20_000


@reconciler("row-changes", period_seconds=300)
def run(db: Database) -> None:
    """Delete all but the newest entries."""
    db.run(lambda tx: changes.trim(tx.connection, keep=KEEP))
