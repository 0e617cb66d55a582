"""Alerts that stand until their cause is over: one row per trouble, however often it is seen.

With a mail server and recipients set, a mail is written with every alert that is raised and with every one that is
cleared, in the same transaction; `alerts.mail` is how it leaves.
"""

from collections.abc import Collection
from enum import IntEnum

from sqlalchemy import ColumnElement, RowMapping, insert, select, update

from pileus.server.config import keys, value
from pileus.server.db.tables.event import alert, alert_mail
from pileus.server.db.transaction import Tx


class AlertType(IntEnum):
    """Wire values of alert types."""

    MEMORY = 0
    CPU = 1
    STORAGE = 2
    STORAGE_ALLOCATED = 3
    PUBLIC_IP = 4
    PRIVATE_IP = 5
    SECONDARY_STORAGE = 6
    HOST = 7
    USER_VM = 8
    ROUTER = 9
    VLAN = 18
    COUNT = 22
    """What was counted disagreed with what is there."""
    DIRECT_PUBLIC_IP = 24
    JOB = 100
    """Ours: a job whose undo keeps failing, or that is open long after its deadline."""


def raise_alert(
    tx: Tx, kind: AlertType, subject: str, description: str, *, zone_id: int | None = None, pod_id: int | None = None
) -> bool:
    """Have an alert stand. False when it stands already; its text then stays as it is."""
    if tx.scalar(select(alert.c.id).where(*_standing(kind, subject))) is not None:
        return False
    alert_id = tx.insert(
        insert(alert).values(
            type=int(kind),
            subject_key=subject,
            description=description,
            zone_id=zone_id,
            pod_id=pod_id,
            created_at=tx.now,
        )
    )
    _write(tx, alert_id, f"Alert: {description}", description)
    return True


def clear(tx: Tx, kind: AlertType, subject: str) -> bool:
    """The cause is over. False when no alert stood."""
    row = tx.one(select(alert).where(*_standing(kind, subject)))
    if row is None:
        return False
    over = update(alert).where(alert.c.id == row["id"], alert.c.standing == 1)
    if tx.execute(over.values(standing=None, cleared_at=tx.now)).rowcount == 0:
        return False
    _write(tx, row["id"], f"Over: {row['description']}", f"This is over:\n\n{row['description']}")
    return True


def standing(tx: Tx, *kinds: AlertType) -> list[RowMapping]:
    """The alerts of these types that stand."""
    found = select(alert).where(alert.c.standing == 1, alert.c.type.in_([int(kind) for kind in kinds]))
    return tx.all(found.order_by(alert.c.id))


def standing_among(tx: Tx, kind: AlertType, subjects: Collection[str]) -> list[str]:
    """Those of some hundreds of subjects about which an alert of this type stands."""
    if not subjects:
        return []
    found = select(alert.c.subject_key).where(
        alert.c.type == int(kind), alert.c.subject_key.in_(list(subjects)), alert.c.standing == 1
    )
    return [row["subject_key"] for row in tx.all(found)]


def _standing(kind: AlertType, subject: str) -> tuple[ColumnElement[bool], ...]:
    return alert.c.type == int(kind), alert.c.subject_key == subject, alert.c.standing == 1


def _write(tx: Tx, alert_id: int, subject: str, body: str) -> None:
    if not value(tx, keys.alert_smtp_host) or not value(tx, keys.alert_email_addresses):
        return
    # A line of a mail's head holds no line break, whatever names stand in the text.
    line = " ".join(subject.split())[:200]
    tx.execute(
        insert(alert_mail).values(alert_id=alert_id, subject=line, body=f"{body}\n", next_at=tx.now, created_at=tx.now)
    )
