"""An alert stands while a host is lost."""

from collections.abc import Sequence

from sqlalchemy import select

from pileus.server.alerts.standing import AlertType, clear, raise_alert, standing_among
from pileus.server.db.tables.host import host
from pileus.server.db.transaction import Tx
from pileus.server.domain.host import HostState


def changed(tx: Tx, host_id: int, state: HostState) -> None:
    """The host has gone into this state just now."""
    changed_all(tx, [(host_id, state)])


def changed_all(tx: Tx, changes: Sequence[tuple[int, HostState]]) -> None:
    """These hosts, some hundreds at most, have gone into these states just now."""
    well = [f"host:{host_id}" for host_id, state in changes if state is HostState.UP]
    for subject in standing_among(tx, AlertType.HOST, well):
        clear(tx, AlertType.HOST, subject)
    lost = {host_id: state for host_id, state in changes if state in (HostState.DOWN, HostState.ALERT)}
    if not lost:
        return
    for row in tx.all(select(host).where(host.c.id.in_(list(lost))).order_by(host.c.id)):
        text = f"Host {row['name']} ({row['address']}) is {lost[row['id']]}: it gives no sign of life"
        raise_alert(tx, AlertType.HOST, f"host:{row['id']}", text, zone_id=row["zone_id"], pod_id=row["pod_id"])
