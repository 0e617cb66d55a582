"""What is claimed of hosts and pools is the sum of what lives and volumes hold. Drift is corrected and logged."""

from functools import partial

import structlog

from pileus.server.alerts.standing import AlertType, clear, raise_alert, standing
from pileus.server.config import keys, value
from pileus.server.db.queries import capacity
from pileus.server.db.queries.capacity import Drift
from pileus.server.db.transaction import Database, Tx
from pileus.server.jobs.reconciler import reconciler

log = structlog.get_logger()


@reconciler("capacity", period_seconds=300.0)
def recount(db: Database) -> None:
    """Recount both, each in one transaction, and apply the factors of over-provisioning as they are now."""
    db.run(_provision)
    drifts: list[Drift] = []
    for count in (capacity.recount_hosts, capacity.recount_pools):
        drifts += db.run(count)
    for drift in drifts:
        log.error("claims had drifted", subject=drift.subject, counted=drift.counted, stood=drift.stood)
    db.run(partial(_tell, drifts=drifts))


def _provision(tx: Tx) -> None:
    hosts = capacity.provision_hosts(tx, value(tx, keys.cpu_overprovisioning_factor))
    pools = capacity.provision_pools(tx, value(tx, keys.storage_overprovisioning_factor))
    if hosts or pools:
        log.info("over-provisioning has changed", hosts=hosts, pools=pools)


def _tell(tx: Tx, drifts: list[Drift]) -> None:
    """What drifted is right again: its alert goes with the next recount that finds nothing."""
    told = {f"claims {drift.subject}": drift for drift in drifts}
    for subject, drift in told.items():
        raise_alert(
            tx,
            AlertType.COUNT,
            subject,
            f"Claims on {drift.subject} had drifted: {drift.stood} stood, {drift.counted} was there. Corrected",
        )
    for row in standing(tx, AlertType.COUNT):
        if row["subject_key"].startswith("claims ") and row["subject_key"] not in told:
            clear(tx, AlertType.COUNT, row["subject_key"])
