"""An alert stands while a host is lost."""

from sqlalchemy import select

from pileus.server.alerts.standing import AlertType, clear, raise_alert
from pileus.server.db.tables.host import host
from pileus.server.db.transaction import Tx
from pileus.server.domain.host import HostState


def changed(tx: Tx, host_id: int, state: HostState) -> None:
    """The host has gone into this state just now."""
    subject = f"host:{host_id}"
    if state is HostState.UP:
        clear(tx, AlertType.HOST, subject)
    if state not in (HostState.DOWN, HostState.ALERT):
        return
    row = tx.one(select(host).where(host.c.id == host_id))
    if row is not None:
        text = f"Host {row['name']} ({row['address']}) is {state}: it gives no sign of life"
        raise_alert(tx, AlertType.HOST, subject, text, zone_id=row["zone_id"], pod_id=row["pod_id"])
