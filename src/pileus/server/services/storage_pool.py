"""Primary storage. Guide: "Primary Storage", "Tags"."""

from typing import Any

from sqlalchemy import RowMapping

from pileus.server.db.queries import cluster as clusters
from pileus.server.db.queries import host as hosts
from pileus.server.db.queries import storage_pool as pools
from pileus.server.db.queries.page import grouped, related
from pileus.server.db.tables.host import storage_pool, storage_pool_tag
from pileus.server.db.tables.place import cluster, pod, zone
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT, SYSTEM_USER
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.ids import Cluster, Id, Pod, StoragePool, Zone
from pileus.server.domain.storage import POOL, CopyState, PoolState
from pileus.server.events import record_by, types
from pileus.server.events.write import COMPLETED, SCHEDULED
from pileus.server.jobs.submit import JobRef, Owner, submit
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds
from pileus.server.services.place_url import place_of
from pileus.server.workflows.storage_attach import attach_pool, detach_pool
from pileus.wire.places import PoolKind

LONGEST_TAG = 128
SYSTEM = Owner(SYSTEM_ACCOUNT, ROOT_DOMAIN, SYSTEM_USER)
KIND_OF_SCHEME = {
    "nfs": PoolKind.NETWORK_FILESYSTEM,
    "sharedmountpoint": PoolKind.SHARED_MOUNT_POINT,
    "file": PoolKind.FILESYSTEM,
    "filesystem": PoolKind.FILESYSTEM,
}


def create(
    tx: Tx,
    caller: Caller,
    *,
    zone_id: Id[Zone],
    pod_id: Id[Pod] | None,
    cluster_id: Id[Cluster] | None,
    name: str,
    url: str,
    tags: str | None,
) -> dict[str, Any]:
    """A new pool of a cluster. It takes volumes once the first host of the cluster has attached it.

    Errors: a cluster of another pod or zone, an unknown scheme, a place that is a pool already.
    """
    if cluster_id is None:
        raise ParameterError("clusterid is required: primary storage belongs to a cluster", parameter="clusterid")
    group = clusters.by_id(tx, cluster_id)
    if group["zone_id"] != zone_id or (pod_id is not None and group["pod_id"] != pod_id):
        raise ParameterError(f"cluster {group['name']} is not in that zone and pod", parameter="clusterid")
    kind, server, path = _place(url)
    for other in pools.same_place(tx, kind=str(kind), server=server, path=path):
        # A directory is one place per cluster; an export is one place for everybody.
        if kind is PoolKind.NETWORK_FILESYSTEM or other["cluster_id"] == cluster_id:
            raise ParameterError(f"{path} is the storage pool {other['name']} already", parameter="url")
    checked_name(name, "name")
    if any(row["name"] == name for row in pools.of_cluster(tx, cluster_id)):
        raise ParameterError(f"the cluster has a storage pool named {name} already", parameter="name")
    pool_id = pools.add(
        tx,
        _tags(tags),
        name=name,
        kind=str(kind),
        zone_id=zone_id,
        pod_id=group["pod_id"],
        cluster_id=cluster_id,
        server=server,
        path=path,
        state=str(PoolState.INITIAL),
    )
    _record(tx, caller, types.PRIMARY_STORAGE_CREATE, f"Primary storage {name} was added", pool_id, zone_id)
    for host_id in pools.hosts_up(tx, cluster_id):
        text = f"Attaching primary storage {name} to host {hosts.by_id(tx, host_id)['name']}"
        # Each host has an event of its own: one may fail where another succeeds.
        begun = _record(tx, caller, types.PRIMARY_STORAGE_CREATE, text, pool_id, zone_id, state=SCHEDULED)
        attach(tx, pool_id, host_id, start_event_id=begun)
    return view(tx, caller, pool_id)


def attach(tx: Tx, pool_id: int, host_id: int, *, start_event_id: int | None = None) -> JobRef:
    """Have a host of the cluster use the pool; its size is learnt from the answer. A failure becomes an event of the
    type of `start_event_id`."""
    return submit(
        tx,
        attach_pool(pool_id, host_id),
        SYSTEM,
        command="attachStoragePool",
        instance_kind="StoragePool",
        instance_id=pool_id,
        resource_key=f"pool:{pool_id}:{host_id}",
        start_event_id=start_event_id,
    )


def attaching(tx: Tx, pool_id: int, host_id: int, *, queued_only: bool = False) -> bool:
    """Whether a job is about to attach the pool to the host; `queued_only` leaves out one that runs already."""
    return pools.has_open_job(tx, f"pool:{pool_id}:{host_id}", queued_only=queued_only)


def converge(tx: Tx) -> None:
    """Have hosts attach what they lack of their cluster's pools, and let go of pools that were removed."""
    for pool_id, host_id in pools.unattached(tx):
        if not attaching(tx, pool_id, host_id):
            attach(tx, pool_id, host_id)
    for pool_id in pools.removed_with_hosts(tx):
        if not pools.has_open_job(tx, f"pool:{pool_id}"):
            detach(tx, pool_id)


def delete(tx: Tx, caller: Caller, pool_id: Id[StoragePool]) -> JobRef:
    """Remove a pool without volumes; the copies of templates on it go with it, and its hosts let go of it."""
    row = pools.by_id(tx, pool_id)
    volumes = pools.volumes_on(tx, pool_id)
    if volumes:
        raise ResourceInUse(f"{volumes} volumes lie on the storage pool: delete them first")
    copies = pools.templates_on(tx, pool_id)
    if any(copy["state"] == CopyState.DOWNLOADING for copy in copies):
        raise ResourceInUse("a template is being copied to the storage pool: try again when it is there")
    if not transition(tx, storage_pool, pool_id, POOL, PoolState.REMOVED):
        raise ResourceInUse("the storage pool is being removed already, or is leaving maintenance")
    pools.change(tx, pool_id, live=None, removed_at=tx.now)
    _record(
        tx, caller, types.PRIMARY_STORAGE_DELETE, f"Primary storage {row['name']} was deleted", pool_id, row["zone_id"]
    )
    return detach(tx, pool_id)


def detach(tx: Tx, pool_id: int) -> JobRef:
    """Have all hosts let go of a removed pool, after one of them has removed the copies of templates."""
    names = [copy["name"] for copy in pools.templates_on(tx, pool_id)]
    return submit(
        tx,
        detach_pool(pool_id, pools.hosts_of(tx, pool_id), names),
        SYSTEM,
        command="deleteStoragePool",
        instance_kind="StoragePool",
        instance_id=pool_id,
        resource_key=f"pool:{pool_id}",
    )


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    pool_id: int | None,
    name: str | None,
    server: str | None,
    path: str | None,
    zone_id: int | None,
    pod_id: int | None,
    cluster_id: int | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Pools that match."""
    offset, limit = bounds(tx, page, page_size)
    equal = {
        "id": pool_id,
        "name": name,
        "server": server,
        "path": path,
        "zone_id": zone_id,
        "pod_id": pod_id,
        "cluster_id": cluster_id,
    }
    rows, count = pools.matching(tx, equal, keyword=keyword, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, pool_id: int) -> dict[str, Any]:
    """One pool, as lists show it."""
    return _views(tx, [pools.by_id(tx, pool_id)])[0]


def _place(url: str) -> tuple[PoolKind, str, str]:
    where = place_of(url, "url")
    kind = KIND_OF_SCHEME.get(where.scheme)
    if kind is None or not where.path.startswith("/"):
        allowed = ", ".join(f"{scheme}://" for scheme in ("nfs", "SharedMountPoint", "file"))
        raise ParameterError(f"url must start with one of {allowed} and name a directory", parameter="url")
    if kind is PoolKind.NETWORK_FILESYSTEM and not where.host:
        raise ParameterError("an NFS url must name its server: nfs://server/export", parameter="url")
    return kind, where.host if kind is PoolKind.NETWORK_FILESYSTEM else "", where.path


def _tags(text: str | None) -> list[str]:
    tags = [tag.strip() for tag in (text or "").split(",") if tag.strip()]
    if any(len(tag) > LONGEST_TAG for tag in tags):
        raise ParameterError(f"a tag in tags has at most {LONGEST_TAG} characters", parameter="tags")
    return tags


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    zones = related(tx, zone, (row["zone_id"] for row in rows))
    places = related(tx, pod, (row["pod_id"] for row in rows))
    groups = related(tx, cluster, (row["cluster_id"] for row in rows))
    tags = grouped(tx, storage_pool_tag, (row["id"] for row in rows), storage_pool_tag.c.pool_id)
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "zone_id": zones[row["zone_id"]]["uuid"],
            "zone_name": zones[row["zone_id"]]["name"],
            "pod_id": places[row["pod_id"]]["uuid"] if row["pod_id"] else None,
            "pod_name": places[row["pod_id"]]["name"] if row["pod_id"] else None,
            "cluster_id": groups[row["cluster_id"]]["uuid"] if row["cluster_id"] else None,
            "cluster_name": groups[row["cluster_id"]]["name"] if row["cluster_id"] else None,
            "ip_address": row["server"] or "localhost",
            "path": row["path"],
            "type": row["kind"],
            "state": row["state"],
            "created": row["created_at"],
            "disk_size_total": row["capacity_bytes"],
            "disk_size_allocated": row["allocated_bytes"],
            "disk_size_used": max(0, row["capacity_bytes"] - row["available_bytes"]),
            "tags": ",".join(sorted(t["tag"] for t in tags[row["id"]])) or None,
        }
        for row in rows
    ]


def _record(
    tx: Tx, caller: Caller, event: str, text: str, pool_id: int, zone_id: int, *, state: str = COMPLETED
) -> int:
    return record_by(tx, caller, event, text, state=state, kind="StoragePool", id=pool_id, zone_id=zone_id)
