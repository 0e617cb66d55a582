"""An alert stands while something is nearly used up in a cluster, pod or zone, or while a host is lost.

Checked at multiples of `capacity.check.period`. Where a place holds only one smaller one, only that is told of.
"""

from sqlalchemy import select

from pileus.server.alerts.standing import AlertType, clear, raise_alert, standing
from pileus.server.config import keys, value
from pileus.server.config.key import Key
from pileus.server.db.queries import capacity_sums
from pileus.server.db.tables.host import host
from pileus.server.db.tables.place import cluster, pod, zone
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.capacity import Capacity, CapacityType, summed
from pileus.server.domain.host import HostState
from pileus.server.jobs.reconciler import reconciler

PERIOD_SECONDS = 60

_WATCHED: dict[CapacityType, tuple[AlertType, Key[float], str]] = {
    CapacityType.MEMORY: (AlertType.MEMORY, keys.memory_capacity_threshold, "memory"),
    CapacityType.CPU: (AlertType.CPU, keys.cpu_capacity_threshold, "CPU"),
    CapacityType.STORAGE: (AlertType.STORAGE, keys.storage_capacity_threshold, "primary storage"),
    CapacityType.STORAGE_ALLOCATED: (
        AlertType.STORAGE_ALLOCATED,
        keys.storage_allocated_capacity_threshold,
        "primary storage that volumes may claim",
    ),
    CapacityType.PUBLIC_IP: (AlertType.PUBLIC_IP, keys.public_ip_capacity_threshold, "public IP addresses"),
    CapacityType.PRIVATE_IP: (AlertType.PRIVATE_IP, keys.private_ip_capacity_threshold, "private IP addresses"),
    CapacityType.SECONDARY_STORAGE: (
        AlertType.SECONDARY_STORAGE,
        keys.secondary_storage_capacity_threshold,
        "secondary storage",
    ),
    CapacityType.VLAN: (AlertType.VLAN, keys.vlan_capacity_threshold, "VLANs"),
    CapacityType.DIRECT_PUBLIC_IP: (
        AlertType.DIRECT_PUBLIC_IP,
        keys.public_ip_capacity_threshold,
        "addresses of Direct networks",
    ),
}


@reconciler("capacity-alerts", period_seconds=PERIOD_SECONDS)
def check(db: Database) -> None:
    """Raise and clear, in one transaction: places are few."""
    db.run(_check)


def _check(tx: Tx) -> None:
    # Seen twice near a multiple of the period rather than never: a second look changes nothing.
    if tx.now % value(tx, keys.capacity_check_period) >= 2 * PERIOD_SECONDS * 1000:
        return
    told = {(kind, subject): (text, place) for kind, subject, text, place in _short(tx)}
    for (kind, subject), (text, place) in told.items():
        raise_alert(tx, kind, subject, text, zone_id=place.zone_id, pod_id=place.pod_id)
    for row in standing(tx, *(kind for kind, _, _ in _WATCHED.values())):
        if (AlertType(row["type"]), row["subject_key"]) not in told:
            clear(tx, AlertType(row["type"]), row["subject_key"])
    _clear_hosts(tx)


def _short(tx: Tx) -> list[tuple[AlertType, str, str, Capacity]]:
    found = []
    for place in _places(capacity_sums.everywhere(tx)):
        kind, key, noun = _WATCHED[place.type]
        if place.total and place.share > value(tx, key):
            subject, where = _named(tx, place)
            percent = f"{100 * place.share:.1f}%"
            text = f"{where} is short of {noun}: {percent} in use, {place.used} of {place.total}"
            found.append((kind, subject, text, place))
    return found


def _places(found: list[Capacity]) -> list[Capacity]:
    """What is in each cluster, pod and zone; not the larger place where it says the same as its only smaller one."""
    places = summed(found, clusters=True)
    for larger in (summed(found, clusters=False), summed(found, clusters=False, pods=False)):
        known = {(each.type, each.zone_id, each.used, each.total) for each in places}
        places += [each for each in larger if (each.type, each.zone_id, each.used, each.total) not in known]
    return places


def _named(tx: Tx, place: Capacity) -> tuple[str, str]:
    for noun, table, key in (
        ("cluster", cluster, place.cluster_id),
        ("pod", pod, place.pod_id),
        ("zone", zone, place.zone_id),
    ):
        if key is not None:
            return f"{noun}:{key}", f"{noun} {tx.scalar(select(table.c.name).where(table.c.id == key))}"
    raise ValueError(f"{place} is nowhere")


def _clear_hosts(tx: Tx) -> None:
    """Hosts that were deleted while they were lost have nobody else to clear their alert."""
    for row in standing(tx, AlertType.HOST):
        host_id = int(row["subject_key"].removeprefix("host:"))
        state = tx.scalar(select(host.c.state).where(host.c.id == host_id, host.c.live == 1))
        if state in (None, HostState.UP):
            clear(tx, AlertType.HOST, row["subject_key"])
