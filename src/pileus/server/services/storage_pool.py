"""Primary storage. Guide: "Primary Storage", "Tags"."""

from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import RowMapping

from pileus.server.db.queries import cluster as clusters
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
from pileus.server.domain.storage import POOL, PoolState
from pileus.server.jobs.submit import Owner, submit
from pileus.server.services.paging import bounds
from pileus.server.workflows.storage_attach import attach_pool, detach_pool
from pileus.wire.places import PoolKind

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
    other = pools.same_place(tx, kind=str(kind), server=server, path=path)
    if other is not None and kind is PoolKind.NETWORK_FILESYSTEM:
        raise ParameterError(f"{url} is the storage pool {other['name']} already", parameter="url")
    if any(row["name"] == name for row in pools.of_cluster(tx, cluster_id)):
        raise ParameterError(f"the cluster has a storage pool named {name} already", parameter="name")
    pool_id = pools.add(
        tx,
        [tag.strip() for tag in (tags or "").split(",") if tag.strip()],
        name=name,
        kind=str(kind),
        zone_id=zone_id,
        pod_id=group["pod_id"],
        cluster_id=cluster_id,
        server=server,
        path=path,
        state=str(PoolState.INITIAL),
    )
    for host_id in pools.hosts_up(tx, cluster_id):
        attach(tx, pool_id, host_id)
    return view(tx, caller, pool_id)


def attach(tx: Tx, pool_id: int, host_id: int) -> None:
    """Have a host of the cluster use the pool; its size is learnt from the answer."""
    submit(
        tx,
        attach_pool(pool_id, host_id),
        SYSTEM,
        command="attachStoragePool",
        instance_kind="StoragePool",
        instance_id=pool_id,
        resource_key=f"pool:{pool_id}:{host_id}",
    )


def delete(tx: Tx, caller: Caller, pool_id: Id[StoragePool]) -> None:
    """Remove a pool without volumes; the copies of templates on it go with it."""
    volumes = pools.volumes_on(tx, pool_id)
    if volumes:
        raise ResourceInUse(f"{volumes} volumes lie on the storage pool: delete them first")
    if not transition(tx, storage_pool, pool_id, POOL, PoolState.REMOVED):
        raise ResourceInUse("the storage pool is being removed already, or is leaving maintenance")
    names = [row["name"] for row in pools.templates_on(tx, pool_id)]
    attached = pools.attached_hosts(tx, pool_id)
    pools.change(tx, pool_id, live=None, removed_at=tx.now)
    submit(
        tx,
        detach_pool(pool_id, attached, names),
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
    parts = urlsplit(url)
    kind = KIND_OF_SCHEME.get(parts.scheme.lower())
    path = unquote(parts.path).rstrip("/")
    if kind is None or not path.startswith("/") or ".." in path.split("/"):
        allowed = ", ".join(f"{scheme}://" for scheme in ("nfs", "SharedMountPoint", "file"))
        raise ParameterError(f"url must start with one of {allowed} and name a directory", parameter="url")
    if kind is PoolKind.NETWORK_FILESYSTEM and not parts.hostname:
        raise ParameterError("an NFS url must name its server: nfs://server/export", parameter="url")
    return kind, (parts.hostname or "") if kind is PoolKind.NETWORK_FILESYSTEM else "", path


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
