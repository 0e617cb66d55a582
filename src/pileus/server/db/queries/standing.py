"""How many there are of what, in which state: for those who watch the whole cloud. Each is one query."""

from sqlalchemy import case, func, select

from pileus.server.db.tables.host import host, host_operation
from pileus.server.db.tables.job import job
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Tx
from pileus.server.domain.job import Phase


def open_jobs(tx: Tx) -> dict[str, int]:
    """Jobs that have not ended: queued behind another, running (a server holds them), waiting, or stuck."""
    state = case(
        (job.c.phase.in_([str(Phase.QUEUED), str(Phase.STUCK)]), job.c.phase),
        (job.c.lease_owner.is_not(None), "running"),
        else_="waiting",
    ).label("state")
    rows = tx.all(select(state, func.count().label("number")).where(job.c.open == 1).group_by(state))
    return {str(row["state"]): int(row["number"]) for row in rows}


def hosts(tx: Tx) -> dict[tuple[str, str], int]:
    """Hosts that are not removed, by kind and state."""
    found = select(host.c.kind, host.c.state, func.count().label("number")).where(host.c.live == 1)
    return {
        (str(row["kind"]), str(row["state"])): int(row["number"])
        for row in tx.all(found.group_by(host.c.kind, host.c.state))
    }


def unanswered_operations(tx: Tx) -> int:
    """Operations that hosts have not answered."""
    return int(tx.scalar(select(func.count()).select_from(host_operation).where(host_operation.c.pending == 1)) or 0)


def zone_names(tx: Tx) -> dict[int, str]:
    """The zones that are not removed."""
    return {int(row["id"]): str(row["name"]) for row in tx.all(select(zone.c.id, zone.c.name).where(zone.c.live == 1))}
