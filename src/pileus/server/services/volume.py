"""Volumes as the API shows them. Guide: "Working with Volumes"."""

from typing import Any

from sqlalchemy import RowMapping

from pileus.server.auth.visibility import scope
from pileus.server.db.queries import volume as volumes
from pileus.server.db.queries.page import related
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.host import storage_pool
from pileus.server.db.tables.offering import disk_offering, service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import template
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.storage import VolumeKind, VolumeState
from pileus.server.services.choice import one_of
from pileus.server.services.paging import bounds

SHARED = "shared"
"""Where volumes lie, as `storagetype` says it: pools belong to clusters, never to one host."""


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    volume_ids: list[int] | None,
    name: str | None,
    kind: str | None,
    zone_id: int | None,
    pod_id: int | None,
    host_id: int | None,
    pool_id: int | None,
    vm_id: int | None,
    state: str | None,
    account_name: str | None,
    domain_id: int | None,
    list_all: bool | None,
    is_recursive: bool | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Volumes that the caller asks for and may see."""
    offset, limit = bounds(tx, page, page_size)
    allowed = scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=volume_ids is not None or vm_id is not None,
        tx=tx,
    )
    rows, count = volumes.page_of_volumes(
        tx,
        allowed.where(volume.c.account_id, volume.c.domain_id),
        volume_ids=volume_ids,
        name=name,
        kind=None if kind is None else str(one_of(VolumeKind, kind, "type")),
        zone_id=zone_id,
        vm_id=vm_id,
        pod_id=pod_id,
        host_id=host_id,
        pool_id=pool_id,
        state=None if state is None else str(one_of(VolumeState, state, "state")),
        keyword=keyword,
        offset=offset,
        limit=limit,
    )
    return views(tx, caller, rows), count


def view(tx: Tx, caller: Caller, volume_id: int) -> dict[str, Any]:
    """One volume, removed ones included."""
    return views(tx, caller, [volumes.row(tx, volume_id)])[0]


def views(tx: Tx, caller: Caller, rows: list[RowMapping]) -> list[dict[str, Any]]:
    """Many volumes, in a fixed number of queries."""
    accounts = related(tx, account, (row["account_id"] for row in rows), "name")
    domains = related(tx, domain, (row["domain_id"] for row in rows), "uuid", "name")
    zones = related(tx, zone, (row["zone_id"] for row in rows))
    of_machine = ("uuid", "name", "display_name", "state", "hypervisor")
    machines = related(tx, vm, (row["vm_id"] for row in rows), *of_machine)
    templates = related(tx, template, (row["template_id"] for row in rows))
    disk_offerings = related(tx, disk_offering, (row["disk_offering_id"] for row in rows))
    offerings = related(tx, service_offering, (row["service_offering_id"] for row in rows))
    pools = related(tx, storage_pool, (row["pool_id"] for row in rows), "uuid", "name") if caller.is_admin else {}
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "zone_id": zones[row["zone_id"]]["uuid"],
            "zone_name": zones[row["zone_id"]]["name"],
            "type": row["kind"],
            "size": row["size_bytes"],
            "created": row["created_at"],
            "state": row["state"],
            "account": accounts[row["account_id"]]["name"],
            "domain_id": domains[row["domain_id"]]["uuid"],
            "domain": domains[row["domain_id"]]["name"],
            "storage_type": SHARED,
            "attached": row["attached_at"] if row["vm_id"] is not None else None,
            "destroyed": row["state"] in (VolumeState.DESTROY, VolumeState.EXPUNGED),
            "is_extractable": _is_extractable(row, templates),
            **_machine(row, machines),
            **_source(row, templates),
            **_offering("disk_offering", disk_offerings.get(row["disk_offering_id"] or 0)),
            **_offering("service_offering", offerings.get(row["service_offering_id"] or 0)),
            "storage": _column(pools, row["pool_id"], "name"),
            "storage_id": _column(pools, row["pool_id"], "uuid"),
            "path": row["path"] if caller.is_admin else None,
        }
        for row in rows
    ]


def _machine(row: RowMapping, machines: dict[int, RowMapping]) -> dict[str, Any]:
    machine = machines.get(row["vm_id"] or 0)
    if machine is None:
        return {}
    return {
        "device_id": row["device_id"],
        "virtual_machine_id": machine["uuid"],
        "vm_name": machine["name"],
        "vm_display_name": machine["display_name"],
        "vm_state": machine["state"],
        "hypervisor": machine["hypervisor"],
    }


def _source(row: RowMapping, templates: dict[int, RowMapping]) -> dict[str, Any]:
    source = templates.get(row["template_id"] or 0)
    if source is None:
        return {}
    found = {"source_id": source["uuid"], "source_type": "template", "hypervisor": source["hypervisor"]}
    if row["kind"] == VolumeKind.ROOT:
        names = {"template_name": source["name"], "template_display_text": source["display_text"]}
        found |= {"template_id": source["uuid"], **names}
    return found


def _offering(prefix: str, offering: RowMapping | None) -> dict[str, Any]:
    if offering is None:
        return {}
    return {
        f"{prefix}_id": offering["uuid"],
        f"{prefix}_name": offering["name"],
        f"{prefix}_display_text": offering["display_text"],
    }


def _is_extractable(row: RowMapping, templates: dict[int, RowMapping]) -> bool:
    """A root disk may be taken out if its template may; a data disk is its owner's own."""
    source = templates.get(row["template_id"] or 0)
    return source is None or bool(source["is_extractable"])


def _column(rows: dict[int, RowMapping], key: int | None, column: str) -> Any:
    row = rows.get(key or 0)
    return None if row is None else row[column]
