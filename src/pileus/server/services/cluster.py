"""Clusters. Guide: "Clusters"."""

from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping

from pileus.server.db.queries import cluster as clusters
from pileus.server.db.queries import pod as pods
from pileus.server.db.queries.page import related
from pileus.server.db.tables.place import pod, zone
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.host import AllocationState, Hypervisor
from pileus.server.domain.ids import Cluster, Id, Pod, Zone
from pileus.server.events import record_by, types
from pileus.server.services.choice import one_of
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds

MANAGED = "Managed"


class ClusterType(StrEnum):
    """Who manages the hosts of a cluster."""

    CLOUD = "CloudManaged"
    EXTERNAL = "ExternalManaged"


def add(
    tx: Tx,
    caller: Caller,
    *,
    zone_id: Id[Zone],
    pod_id: Id[Pod] | None,
    name: str,
    hypervisor: str,
    cluster_type: str,
    allocation_state: str | None,
) -> int:
    """A new cluster of hosts of one hypervisor type in a pod; returns its key."""
    checked_name(name, "clustername")
    if pod_id is None:
        raise ParameterError("podid is required for a cluster", parameter="podid")
    place = pods.by_id(tx, pod_id)
    if place["zone_id"] != zone_id:
        raise ParameterError(f"pod {place['name']} is not in the zone given by zoneid", parameter="podid")
    if clusters.named(tx, pod_id, name) is not None:
        raise ParameterError(f"the pod has a cluster named {name} already", parameter="clustername")
    cluster_id = clusters.add(
        tx,
        zone_id=zone_id,
        pod_id=pod_id,
        name=name,
        hypervisor=str(hypervisor_of_hosts(hypervisor)),
        cluster_type=str(one_of(ClusterType, cluster_type, "clustertype")),
        allocation_state=str(one_of(AllocationState, allocation_state or "Enabled", "allocationstate")),
    )
    added(tx, caller, cluster_id, name)
    return cluster_id


def added(tx: Tx, caller: Caller, cluster_id: int, name: str) -> None:
    """Tell of a new cluster."""
    _record(tx, caller, types.CLUSTER_CREATE, f"Cluster {name} was added", cluster_id)


def update(
    tx: Tx, caller: Caller, cluster_id: Id[Cluster], *, name: str | None, cluster_type: str | None,
    hypervisor: str | None, allocation_state: str | None, managed_state: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Change a cluster. Its hypervisor can change only while it has no hosts (536)."""
    row = clusters.by_id(tx, cluster_id)
    if managed_state is not None and managed_state.lower() != MANAGED.lower():
        raise ParameterError(f"managedstate can only be {MANAGED}", parameter="managedstate")
    changes: dict[str, Any] = {}
    if name is not None and name != row["name"]:
        if clusters.named(tx, row["pod_id"], checked_name(name, "clustername")) is not None:
            raise ParameterError(f"the pod has a cluster named {name} already", parameter="clustername")
        changes["name"] = name
    if cluster_type is not None:
        changes["cluster_type"] = str(one_of(ClusterType, cluster_type, "clustertype"))
    if hypervisor is not None:
        wanted = str(hypervisor_of_hosts(hypervisor))
        if wanted != row["hypervisor"] and clusters.users_of(tx, cluster_id):
            raise ResourceInUse("the hypervisor of a cluster with hosts or storage pools cannot change")
        changes["hypervisor"] = wanted
    if allocation_state is not None:
        changes["allocation_state"] = str(one_of(AllocationState, allocation_state, "allocationstate"))
    if changes:
        clusters.change(tx, cluster_id, **changes)
    _record(tx, caller, types.CLUSTER_EDIT, f"Cluster {changes.get('name', row['name'])} was changed", cluster_id)
    return view(tx, caller, cluster_id)


def delete(tx: Tx, caller: Caller, cluster_id: Id[Cluster]) -> None:
    """Remove an empty cluster; 536 says what it still has."""
    still_there = clusters.users_of(tx, cluster_id)
    if still_there:
        text = ", ".join(f"{n} {name}" for name, n in still_there.items())
        raise ResourceInUse(f"the cluster still has {text}: remove them first")
    clusters.change(tx, cluster_id, live=None, removed_at=tx.now)
    name = clusters.by_id(tx, cluster_id)["name"]
    _record(tx, caller, types.CLUSTER_DELETE, f"Cluster {name} was deleted", cluster_id)


def list_page(
    tx: Tx, caller: Caller, *, cluster_id: int | None, zone_id: int | None, pod_id: int | None, name: str | None,
    hypervisor: str | None, cluster_type: str | None, allocation_state: str | None, keyword: str | None,
    page: int | None, page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Clusters that match."""
    offset, limit = bounds(tx, page, page_size)
    equal = {
        "id": cluster_id,
        "zone_id": zone_id,
        "pod_id": pod_id,
        "name": name,
        "hypervisor": str(one_of(Hypervisor, hypervisor, "hypervisor")) if hypervisor else None,
        "cluster_type": str(one_of(ClusterType, cluster_type, "clustertype")) if cluster_type else None,
        "allocation_state": str(one_of(AllocationState, allocation_state, "allocationstate"))
        if allocation_state
        else None,
    }
    rows, count = clusters.matching(tx, equal, keyword=keyword, offset=offset, limit=limit)
    return _views(tx, rows), count


def hypervisors(tx: Tx, zone_id: int | None) -> list[str]:
    """Hypervisor types that a zone (or the cloud) has clusters of."""
    return clusters.hypervisors(tx, zone_id)


def view(tx: Tx, caller: Caller, cluster_id: int) -> dict[str, Any]:
    """One cluster, as lists show it."""
    return _views(tx, [clusters.by_id(tx, cluster_id)])[0]


def hypervisor_of_hosts(text: str) -> Hypervisor:
    """A hypervisor that hosts can have."""
    found = one_of(Hypervisor, text, "hypervisor")
    if found is Hypervisor.NONE:
        raise ParameterError("hosts have a hypervisor: hypervisor cannot be None", parameter="hypervisor")
    return found


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    zones = related(tx, zone, (row["zone_id"] for row in rows))
    places = related(tx, pod, (row["pod_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "zone_id": zones[row["zone_id"]]["uuid"],
            "zone_name": zones[row["zone_id"]]["name"],
            "pod_id": places[row["pod_id"]]["uuid"],
            "pod_name": places[row["pod_id"]]["name"],
            "hypervisor_type": row["hypervisor"],
            "cluster_type": row["cluster_type"],
            "allocation_state": row["allocation_state"],
            "managed_state": MANAGED,
        }
        for row in rows
    ]


def _record(tx: Tx, caller: Caller, event: str, text: str, cluster_id: int) -> None:
    record_by(tx, caller, event, text, kind="Cluster", id=cluster_id)
