"""Alerts that stand until their cause is over: one row per trouble, however often it is seen."""

from enum import IntEnum

from sqlalchemy import insert, select, update

from pileus.server.db.tables.event import alert
from pileus.server.db.transaction import Tx


class AlertType(IntEnum):
    """Wire values of alert types."""

    MEMORY = 0
    CPU = 1
    STORAGE = 2
    STORAGE_ALLOCATED = 3
    PUBLIC_IP = 4
    PRIVATE_IP = 5
    HOST = 7
    USER_VM = 8
    ROUTER = 9
    JOB = 100
    """Ours: a job whose undo keeps failing."""


def raise_alert(
    tx: Tx, kind: AlertType, subject: str, description: str, *, zone_id: int | None = None, pod_id: int | None = None
) -> bool:
    """Have an alert stand. False when it stands already; its text then stays as it is."""
    mine = (alert.c.type == int(kind), alert.c.subject_key == subject, alert.c.standing == 1)
    if tx.scalar(select(alert.c.id).where(*mine)) is not None:
        return False
    tx.execute(
        insert(alert).values(
            type=int(kind),
            subject_key=subject,
            description=description,
            zone_id=zone_id,
            pod_id=pod_id,
            created_at=tx.now,
        )
    )
    return True


def clear(tx: Tx, kind: AlertType, subject: str) -> bool:
    """The cause is over. False when no alert stood."""
    mine = (alert.c.type == int(kind), alert.c.subject_key == subject, alert.c.standing == 1)
    return tx.execute(update(alert).where(*mine).values(standing=None, cleared_at=tx.now)).rowcount == 1
