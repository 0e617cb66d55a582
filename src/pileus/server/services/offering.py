"""Service and disk offerings. Guide: "Defining Your Service Offering", "Tags"."""

from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping, Table

from pileus.server.config import keys, value
from pileus.server.db.queries import offering as offerings
from pileus.server.db.queries.ancestry import offered
from pileus.server.db.queries.page import related
from pileus.server.db.tables.account import domain
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Role
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.ids import DiskOffering, Domain, Id, ServiceOffering
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.services.choice import one_of
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds

_GIB = 1024**3
FASTEST_MBPS = 1_000_000


class SystemVmType(StrEnum):
    """What a system VM does."""

    ROUTER = "domainrouter"
    CONSOLE_PROXY = "consoleproxy"
    SECONDARY_STORAGE = "secondarystoragevm"


class StorageType(StrEnum):
    """Where root disks lie."""

    SHARED = "shared"
    LOCAL = "local"


def create_service(
    tx: Tx,
    caller: Caller,
    *,
    name: str,
    display_text: str,
    cpus: int,
    cpu_mhz: int,
    ram_mib: int,
    rate_mbps: int | None,
    offer_ha: bool,
    limit_cpu: bool,
    storage_type: str | None,
    tags: str | None,
    host_tag: str | None,
    domain_id: Id[Domain] | None,
    is_system: bool,
    system_vm_type: str | None,
) -> dict[str, Any]:
    """A new service offering. CPU and memory are bounded by what any host could hold."""
    checked_name(name, "name")
    for number, parameter, least, most in (
        (cpus, "cpunumber", 1, 1024),
        (cpu_mhz, "cpuspeed", 1, 1_000_000),
        (ram_mib, "memory", 32, 16_777_216),
        (rate_mbps or 0, "networkrate", 0, FASTEST_MBPS),
    ):
        if not least <= number <= most:
            raise ParameterError(f"{parameter} must lie between {least} and {most}", parameter=parameter)
    storage = one_of(StorageType, storage_type or StorageType.SHARED, "storagetype")
    serves = one_of(SystemVmType, system_vm_type or "", "systemvmtype") if is_system else None
    offering_id = offerings.add(
        tx,
        offerings.SERVICE,
        name=name,
        display_text=display_text,
        cpus=cpus,
        cpu_mhz=cpu_mhz,
        ram_mib=ram_mib,
        rate_mbps=rate_mbps,
        offer_ha=int(offer_ha),
        limit_cpu=int(limit_cpu),
        local_storage=int(storage is StorageType.LOCAL),
        tags=_tags(tags),
        host_tag=(host_tag or "").strip() or None,
        domain_id=domain_id,
        is_system=int(is_system),
        system_vm_type=str(serves) if serves else None,
    )
    _record(
        tx,
        caller,
        types.SERVICE_OFFERING_CREATE,
        f"Service offering {name} was created",
        "ServiceOffering",
        offering_id,
    )
    return service_view(tx, caller, offering_id)


def update_service(
    tx: Tx, caller: Caller, offering_id: Id[ServiceOffering], *, name: str | None, display_text: str | None
) -> dict[str, Any]:
    """Rename a service offering; what it gives never changes."""
    now = _rename(tx, offerings.SERVICE, offering_id, name, display_text)
    if name is not None:
        virtual_router.offering_changed(tx, offering_id)
    text = f"Service offering {now} was changed"
    _record(tx, caller, types.SERVICE_OFFERING_EDIT, text, "ServiceOffering", offering_id)
    return service_view(tx, caller, offering_id)


def delete_service(tx: Tx, caller: Caller, offering_id: Id[ServiceOffering]) -> None:
    """Stop offering it; virtual machines that have it keep it."""
    row = offerings.by_id(tx, offerings.SERVICE, offering_id)
    if row["is_default"] and row["is_system"]:
        raise ResourceInUse("the built-in offering of system VMs cannot be deleted")
    offerings.change(tx, offerings.SERVICE, offering_id, live=None, removed_at=tx.now)
    _record(
        tx,
        caller,
        types.SERVICE_OFFERING_DELETE,
        f"Service offering {row['name']} was deleted",
        "ServiceOffering",
        offering_id,
    )


def list_service(
    tx: Tx, caller: Caller, *, offering_id: int | None, name: str | None, vm_id: int | None, domain_id: int | None,
    is_system: bool, system_vm_type: str | None, keyword: str | None, page: int | None, page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Service offerings the caller may use. System offerings are for root administrators."""
    if vm_id is not None:
        offering_id = offerings.service_of_vm(tx, vm_id)
    equal = {
        "id": offering_id,
        "name": name,
        "domain_id": domain_id,
        "is_system": int(is_system and caller.is_admin),
        "system_vm_type": str(one_of(SystemVmType, system_vm_type, "systemvmtype")) if system_vm_type else None,
    }
    rows, count = _page(tx, caller, offerings.SERVICE, equal, keyword, page, page_size)
    return _service_views(tx, rows), count


def service_view(tx: Tx, caller: Caller, offering_id: int) -> dict[str, Any]:
    """One service offering, as lists show it."""
    return _service_views(tx, [offerings.by_id(tx, offerings.SERVICE, offering_id)])[0]


def create_disk(
    tx: Tx,
    caller: Caller,
    *,
    name: str,
    display_text: str,
    size_gib: int | None,
    customized: bool,
    tags: str | None,
    domain_id: Id[Domain] | None,
) -> dict[str, Any]:
    """A new disk offering: of a size in GB, or customized, where the user chooses."""
    checked_name(name, "name")
    most = value(tx, keys.storage_max_volume_size)
    if customized and size_gib:
        raise ParameterError("a customized disk offering has no disksize", parameter="disksize")
    if not customized and (size_gib is None or not 1 <= size_gib <= most):
        raise ParameterError(f"disksize is in GB and must lie between 1 and {most}", parameter="disksize")
    offering_id = offerings.add(
        tx,
        offerings.DISK,
        name=name,
        display_text=display_text,
        size_bytes=(size_gib or 0) * _GIB,
        customized=int(customized),
        tags=_tags(tags),
        domain_id=domain_id,
    )
    _record(tx, caller, types.DISK_OFFERING_CREATE, f"Disk offering {name} was created", "DiskOffering", offering_id)
    return disk_view(tx, caller, offering_id)


def update_disk(
    tx: Tx, caller: Caller, offering_id: Id[DiskOffering], *, name: str | None, display_text: str | None
) -> dict[str, Any]:
    """Rename a disk offering."""
    now = _rename(tx, offerings.DISK, offering_id, name, display_text)
    _record(tx, caller, types.DISK_OFFERING_EDIT, f"Disk offering {now} was changed", "DiskOffering", offering_id)
    return disk_view(tx, caller, offering_id)


def delete_disk(tx: Tx, caller: Caller, offering_id: Id[DiskOffering]) -> None:
    """Stop offering it; volumes that have it keep it."""
    row = offerings.by_id(tx, offerings.DISK, offering_id)
    offerings.change(tx, offerings.DISK, offering_id, live=None, removed_at=tx.now)
    _record(
        tx, caller, types.DISK_OFFERING_DELETE, f"Disk offering {row['name']} was deleted", "DiskOffering", offering_id
    )


def list_disk(
    tx: Tx, caller: Caller, *, offering_id: int | None, name: str | None, domain_id: int | None, keyword: str | None,
    page: int | None, page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Disk offerings the caller may use."""
    equal = {"id": offering_id, "name": name, "domain_id": domain_id}
    rows, count = _page(tx, caller, offerings.DISK, equal, keyword, page, page_size)
    return _disk_views(tx, rows), count


def disk_view(tx: Tx, caller: Caller, offering_id: int) -> dict[str, Any]:
    """One disk offering, as lists show it."""
    return _disk_views(tx, [offerings.by_id(tx, offerings.DISK, offering_id)])[0]


def _page(
    tx: Tx, caller: Caller, table: Table, equal: dict[str, Any], keyword: str | None, page: int | None,
    page_size: int | None,
) -> tuple[list[RowMapping], int]:  # fmt: skip
    offset, limit = bounds(tx, page, page_size)
    given = None
    if not caller.is_admin and "domain_id" in table.c:
        above = caller.role in (Role.DOMAIN_ADMIN, Role.RESOURCE_ADMIN)
        given = offered(tx, table.c.domain_id, caller.domain_path, with_below=above)
    return offerings.matching(tx, table, equal, given=given, keyword=keyword, offset=offset, limit=limit)


def _rename(tx: Tx, table: Table, offering_id: int, name: str | None, display_text: str | None) -> str:
    """Change what is given; returns the name it has now."""
    changes = {}
    if name is not None:
        changes["name"] = checked_name(name, "name")
    if display_text is not None:
        changes["display_text"] = display_text
    if changes:
        offerings.change(tx, table, offering_id, **changes)
    return str(offerings.by_id(tx, table, offering_id)["name"])


def _tags(text: str | None) -> str | None:
    return ",".join(tag.strip() for tag in (text or "").split(",") if tag.strip()) or None


def _service_views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "display_text": row["display_text"],
            "cpu_number": row["cpus"],
            "cpu_speed": row["cpu_mhz"],
            "memory": row["ram_mib"],
            "created": row["created_at"],
            "storage_type": "local" if row["local_storage"] else "shared",
            "offer_ha": bool(row["offer_ha"]),
            "limit_cpu_use": bool(row["limit_cpu"]),
            "tags": row["tags"],
            "host_tags": row["host_tag"],
            "domain_id": domains[row["domain_id"]]["uuid"] if row["domain_id"] else None,
            "domain": domains[row["domain_id"]]["name"] if row["domain_id"] else None,
            "is_system": bool(row["is_system"]),
            "default_use": bool(row["is_default"]),
            "system_vm_type": row["system_vm_type"],
            "network_rate": row["rate_mbps"],
            "is_customized": False,
        }
        for row in rows
    ]


def _disk_views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "display_text": row["display_text"],
            "disk_size": row["size_bytes"] // _GIB,
            "created": row["created_at"],
            "is_customized": bool(row["customized"]),
            "tags": row["tags"],
            "domain_id": domains[row["domain_id"]]["uuid"] if row["domain_id"] else None,
            "domain": domains[row["domain_id"]]["name"] if row["domain_id"] else None,
        }
        for row in rows
    ]


def _record(tx: Tx, caller: Caller, event: str, text: str, kind: str, offering_id: int) -> None:
    record(
        tx,
        type=event,
        description=text,
        account_id=caller.account_id,
        domain_id=caller.domain_id,
        user_id=caller.user_id,
        resource_kind=kind,
        resource_id=offering_id,
    )
