"""Templates as the API shows them: a line per template and zone, and who sees which by `templatefilter`.
Guide: "Working with Templates"."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, or_, true

from pileus.server.auth.visibility import may_touch, scope
from pileus.server.db.queries import template as templates
from pileus.server.db.queries.page import like, related
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.host import host
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import os_type, template, template_copy
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import PermissionDenied
from pileus.server.domain.host import Hypervisor
from pileus.server.domain.storage import CopyState
from pileus.server.services.choice import one_of
from pileus.server.services.paging import bounds


class TemplateFilter(StrEnum):
    """Which templates a list shows."""

    FEATURED = "featured"
    SELF = "self"
    SELF_EXECUTABLE = "selfexecutable"
    SHARED = "shared"
    SHARED_EXECUTABLE = "sharedexecutable"
    EXECUTABLE = "executable"
    COMMUNITY = "community"
    ALL = "all"


_READY_ONLY = (
    TemplateFilter.FEATURED,
    TemplateFilter.SELF_EXECUTABLE,
    TemplateFilter.SHARED_EXECUTABLE,
    TemplateFilter.EXECUTABLE,
    TemplateFilter.COMMUNITY,
)


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    template_filter: str,
    template_ids: list[int] | None,
    name: str | None,
    zone_id: int | None,
    hypervisor: str | None,
    account_name: str | None,
    domain_id: int | None,
    list_all: bool | None,
    is_recursive: bool | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Templates that match. With ids, every one the caller may see; otherwise what the filter says.

    Errors: an unknown filter 431; filter `all` for anybody but root administrators 531.
    """
    wanted = one_of(TemplateFilter, template_filter.replace("-", ""), "templatefilter")
    offset, limit = bounds(tx, page, page_size)
    if wanted is TemplateFilter.ALL and not caller.is_admin:
        raise PermissionDenied("only root administrators may list all templates")
    where: list[ColumnElement[bool]] = [template.c.live == 1]
    if template_ids is not None:
        where.append(template.c.id.in_(template_ids))
    else:
        everything = wanted is TemplateFilter.ALL
        whose = scope(
            caller,
            account=account_name,
            domain_id=domain_id,
            list_all=list_all or everything,
            is_recursive=is_recursive,
            tx=tx,
        )
        where += _shown(wanted, caller, whose.where(template.c.account_id, template.c.domain_id))
    if name is not None:
        where.append(template.c.name == name)
    if zone_id is not None:
        where.append(template_copy.c.zone_id == zone_id)
    if hypervisor is not None:
        where.append(template.c.hypervisor == one_of(Hypervisor, hypervisor, "hypervisor"))
    if keyword:
        where.append(or_(like(template.c.name, keyword), like(template.c.display_text, keyword)))
    rows, count = templates.page_of_copies(tx, where, offset=offset, limit=limit)
    return views(tx, caller, rows), count


def view(tx: Tx, caller: Caller, template_id: int) -> dict[str, Any]:
    """One template, in the first of its zones."""
    rows, _ = templates.page_of_copies(tx, [template.c.id == template_id], offset=0, limit=1)
    return views(tx, caller, rows)[0]


def views_of(tx: Tx, caller: Caller, template_id: int) -> list[dict[str, Any]]:
    """One template in all of its zones."""
    rows, _ = templates.page_of_copies(tx, [template.c.id == template_id], offset=0, limit=10_000)
    return views(tx, caller, rows)


def views(tx: Tx, caller: Caller, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Many lines, in a fixed number of queries."""
    accounts = related(tx, account, (row["account_id"] for row in rows))
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    zones = related(tx, zone, (row["copy_zone_id"] for row in rows))
    os_types = related(tx, os_type, (row["os_type_id"] for row in rows))
    sources = related(tx, template, (row["source_template_id"] for row in rows))
    hosts = related(tx, host, (row["copy_host_id"] for row in rows)) if caller.is_admin else {}
    owned: dict[tuple[int, int], bool] = {}
    found = []
    for row in rows:
        owner = (row["account_id"], row["domain_id"])
        if owner not in owned:
            owned[owner] = may_touch(tx, caller, *owner)
        place = zones.get(row["copy_zone_id"] or 0)
        store = hosts.get(row["copy_host_id"] or 0)
        source = sources.get(row["source_template_id"] or 0)
        ready = row["copy_state"] == CopyState.READY
        found.append(
            {
                "id": row["uuid"],
                "name": row["name"],
                "display_text": row["display_text"],
                "is_public": bool(row["is_public"]),
                "created": row["created_at"],
                "removed": row["removed_at"],
                "is_ready": ready,
                "password_enabled": bool(row["password_enabled"]),
                "format": row["format"],
                "bootable": bool(row["is_bootable"]),
                "is_featured": bool(row["is_featured"]),
                "cross_zones": bool(row["cross_zones"]),
                "os_type_id": os_types[row["os_type_id"]]["uuid"],
                "os_type_name": os_types[row["os_type_id"]]["name"],
                "account_id": accounts[row["account_id"]]["uuid"],
                "account": accounts[row["account_id"]]["name"],
                "domain_id": domains[row["domain_id"]]["uuid"],
                "domain": domains[row["domain_id"]]["name"],
                "zone_id": place["uuid"] if place is not None else None,
                "zone_name": place["name"] if place is not None else None,
                "status": _status(row) if owned[owner] else None,
                "size": row["copy_virtual_bytes"] if ready else None,
                "physical_size": row["copy_physical_bytes"] if ready else None,
                "template_type": row["type"],
                "hypervisor": row["hypervisor"],
                "is_extractable": bool(row["is_extractable"]),
                "checksum": row["checksum"],
                "source_template_id": source["uuid"] if source is not None else None,
                "host_id": store["uuid"] if store is not None else None,
                "host_name": store["name"] if store is not None else None,
                "template_tag": row["tag"] if caller.is_admin else None,
                "details": msgspec.json.decode(row["details"]) if row["details"] else None,
                "bits": row["bits"],
                "requires_hvm": bool(row["requires_hvm"]),
                "url": row["url"] if caller.is_admin else None,
            }
        )
    return found


def _shown(wanted: TemplateFilter, caller: Caller, own: list[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
    """Conditions of a filter; `own` says whose templates count as the caller's."""
    mine = and_(true(), *own)
    public = template.c.is_public == 1
    featured = and_(public, template.c.is_featured == 1)
    shared = and_(templates.is_permitted(caller.account_id), template.c.account_id != caller.account_id)
    match wanted:
        case TemplateFilter.FEATURED:
            shown = featured
        case TemplateFilter.COMMUNITY:
            shown = and_(public, template.c.is_featured == 0)
        case TemplateFilter.SELF | TemplateFilter.SELF_EXECUTABLE | TemplateFilter.ALL:
            shown = mine
        case TemplateFilter.SHARED | TemplateFilter.SHARED_EXECUTABLE:
            shown = shared
        case TemplateFilter.EXECUTABLE:
            shown = or_(mine, public, shared)
    if wanted in _READY_ONLY:
        return [shown, template_copy.c.state == CopyState.READY]
    return [shown]


def _status(row: Mapping[str, Any]) -> str:
    if row["copy_state"] == CopyState.DOWNLOADING:
        return f"{row['percent_now'] or 0}% Downloaded"
    return str(row["copy_status"] or "")
