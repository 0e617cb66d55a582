"""What is claimed of hosts and pools is the sum of what lives and volumes hold. Drift is corrected and logged."""

import structlog

from pileus.server.db.queries import capacity
from pileus.server.db.transaction import Database
from pileus.server.jobs.reconciler import reconciler

log = structlog.get_logger()


@reconciler("capacity", period_seconds=300.0)
def recount(db: Database) -> None:
    """Recount both, each in one transaction."""
    for count in (capacity.recount_hosts, capacity.recount_pools):
        for drift in db.run(count):
            log.error("claims had drifted", subject=drift.subject, counted=drift.counted, stood=drift.stood)
