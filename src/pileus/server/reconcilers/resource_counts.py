"""What accounts and domains are counted to have is what they have. Drift is corrected, logged and alerted on.

A difference seen in passing may be a claim under way: it counts as drift once it is seen again with the count held.
"""

from functools import partial

import structlog

from pileus.server.alerts.standing import AlertType, clear, raise_alert, standing
from pileus.server.db.queries import count, owned
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.account import Resource
from pileus.server.jobs.reconciler import reconciler

log = structlog.get_logger()

_PREFIX = "count "


@reconciler("resource-counts", period_seconds=3600.0)
def recount(db: Database) -> None:
    """Look at all of them in a few queries, then at each that differs in a transaction of its own."""
    with db.read() as tx:
        suspects = owned.differing(tx)
    drifted = []
    for owner, owner_id, resource in suspects:
        subject = db.run(partial(_correct, owner=owner, owner_id=owner_id, resource=resource))
        if subject is not None:
            drifted.append(subject)
    db.run(partial(_clear, still=drifted))


def _correct(tx: Tx, *, owner: str, owner_id: int, resource: Resource) -> str | None:
    """The subject of the alert, if the count was wrong."""
    count.hold(tx, owner, owner_id, resource)
    used = count.of(tx, owner, owner_id)[resource].used
    there = owned.by_owner(tx, owner, owner_id, resource)
    if there is None or there == used:
        return None
    count.put(tx, owner, owner_id, resource, there)
    log.error("a count had drifted", owner=owner, id=owner_id, resource=resource.name, counted=used, there=there)
    subject = f"{_PREFIX}{owner}:{owner_id}:{int(resource)}"
    what = resource.name.lower().replace("_", " ")
    text = f"The count of {what} of {owner} {owner_id} had drifted: {used} stood, {there} are there. Corrected"
    raise_alert(tx, AlertType.COUNT, subject, text)
    return subject


def _clear(tx: Tx, still: list[str]) -> None:
    for row in standing(tx, AlertType.COUNT):
        if row["subject_key"].startswith(_PREFIX) and row["subject_key"] not in still:
            clear(tx, AlertType.COUNT, row["subject_key"])
