"""Volumes as the workflows see them: what hangs on a VM, where its file lies, who made it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, bindparam, select, update

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.page import like, page
from pileus.server.db.tables.host import host, storage_pool, storage_pool_host
from pileus.server.db.tables.vm import vm, vm_incarnation
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.host import HostState
from pileus.server.domain.storage import VolumeKind, VolumeState
from pileus.wire.places import DiskSpec, PoolKind, PoolRef


@dataclass(frozen=True)
class Disk:
    """A live volume with its pool. `pool` and `path` are None until a place was chosen; sizes in bytes.

    `job_id` and `host_id` say which job had the file made, and through which host; None means there is no file.
    """

    id: int
    uuid: str
    name: str
    kind: VolumeKind
    state: VolumeState
    account_id: int
    domain_id: int
    zone_id: int
    vm_id: int | None
    device_id: int
    pool_id: int | None
    pool: PoolRef | None
    path: str | None
    size_bytes: int
    template_id: int | None
    disk_offering_id: int | None
    job_id: int | None
    host_id: int | None

    @property
    def queue(self) -> str:
        """The queue of everything asked about this volume: deletion waits behind creation."""
        return f"pool:{self.pool.uuid if self.pool else ''}:{self.uuid}"


_pool_columns = (storage_pool.c.uuid, storage_pool.c.kind, storage_pool.c.path, storage_pool.c.server)


def of_vm(tx: Tx, vm_id: int) -> list[Disk]:
    """The live volumes of a VM, root disk first."""
    return [_disk(row) for row in _OF_VM.all(tx, the_vm_id=vm_id)]


def of_account(tx: Tx, account_id: int) -> list[int]:
    """Keys of the live volumes of an account, whatever they hang on."""
    found = select(volume.c.id).where(volume.c.live == 1, volume.c.account_id == account_id).order_by(volume.c.id)
    return [int(key) for key in tx.execute(found).scalars()]


def by_id(tx: Tx, volume_id: int) -> Disk | None:
    """A live volume, or None."""
    row = tx.one(_disks().where(volume.c.live == 1, volume.c.id == volume_id))
    return _disk(row) if row is not None else None


def disk_specs(tx: Tx, vm_id: int) -> tuple[DiskSpec, ...]:
    """What a start of the VM is given: every volume that has a place, root disk first."""
    return tuple(
        DiskSpec(pool=disk.pool, volume=disk.path, device_id=disk.device_id)
        for disk in of_vm(tx, vm_id)
        if disk.pool is not None and disk.path is not None
    )


def planned_host(tx: Tx, vm_id: int) -> int | None:
    """The host of the VM's current life, planned ones included."""
    found = rows.one(tx, vm_incarnation, vm_id=vm_id, current=1)
    return int(found["host_id"]) if found is not None else None


def host_for_pool(tx: Tx, pool_id: int, *, rather: int | None) -> int | None:
    """A host that can reach the files of a pool: `rather` while it is up, else another one that is, else `rather`."""
    up = tx.execute(
        select(host.c.id)
        .join(storage_pool_host, storage_pool_host.c.host_id == host.c.id)
        .where(
            storage_pool_host.c.pool_id == pool_id,
            storage_pool_host.c.attached == 1,
            host.c.live == 1,
            host.c.state == HostState.UP,
        )
        .order_by(host.c.id)
    ).scalars()
    found = [int(host_id) for host_id in up]
    if rather in found or not found:
        return rather
    return found[0]


def pool_reference(tx: Tx, pool_id: int) -> PoolRef | None:
    """A pool as hosts know it; None when it was removed."""
    row = tx.one(select(storage_pool).where(storage_pool.c.id == pool_id, storage_pool.c.live == 1))
    return PoolRef(row["uuid"], PoolKind(row["kind"]), row["path"], row["server"]) if row is not None else None


def change_claim(tx: Tx, pool_id: int, by_bytes: int) -> None:
    """Correct what volumes hold of a pool, after a size turned out other than planned or a volume is gone."""
    tx.execute(
        update(storage_pool)
        .where(storage_pool.c.id == pool_id)
        .values(allocated_bytes=storage_pool.c.allocated_bytes + by_bytes)
    )


def page_of_volumes(
    tx: Tx,
    bounds: Collection[ColumnElement[bool]],
    *,
    volume_ids: Collection[int] | None,
    name: str | None,
    kind: str | None,
    zone_id: int | None,
    vm_id: int | None,
    pod_id: int | None,
    host_id: int | None,
    pool_id: int | None,
    state: str | None,
    keyword: str | None,
    offset: int,
    limit: int,
) -> tuple[list[RowMapping], int]:
    """Live volumes of users that match; those of system VMs are nobody's business.

    `pod_id` is that of the pool; `host_id` that of the machine's host.
    """
    where: list[ColumnElement[bool]] = [volume.c.live == 1, volume.c.is_system == 0, *bounds]
    equal = {"name": name, "kind": kind, "zone_id": zone_id, "vm_id": vm_id, "pool_id": pool_id, "state": state}
    where += [volume.c[column] == wanted for column, wanted in equal.items() if wanted is not None]
    if volume_ids is not None:
        where.append(volume.c.id.in_(volume_ids))
    if pod_id is not None:
        where.append(volume.c.pool_id.in_(select(storage_pool.c.id).where(storage_pool.c.pod_id == pod_id)))
    if host_id is not None:
        where.append(volume.c.vm_id.in_(select(vm.c.id).where(vm.c.live == 1, vm.c.host_id == host_id)))
    if keyword:
        where.append(like(volume.c.name, keyword))
    return page(tx, volume, where, offset=offset, limit=limit)


def row(tx: Tx, volume_id: int) -> RowMapping:
    """The row of a volume, removed ones included."""
    found = tx.one(select(volume).where(volume.c.id == volume_id))
    if found is None:
        raise LookupError(f"no volume {volume_id}")
    return found


def _disks() -> Select[Any]:
    return (
        select(volume, *(column.label(f"pool_{column.name}") for column in _pool_columns))
        .select_from(volume.outerjoin(storage_pool, storage_pool.c.id == volume.c.pool_id))
        .order_by(volume.c.device_id, volume.c.id)
    )


_OF_VM = Prepared(_disks().where(volume.c.live == 1, volume.c.vm_id == bindparam("the_vm_id")))


def _disk(row: Mapping[Any, Any]) -> Disk:
    pool = None
    if row["pool_id"] is not None:
        pool = PoolRef(row["pool_uuid"], PoolKind(row["pool_kind"]), row["pool_path"], row["pool_server"])
    return Disk(
        id=row["id"],
        uuid=row["uuid"],
        name=row["name"],
        kind=VolumeKind(row["kind"]),
        state=VolumeState(row["state"]),
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        zone_id=row["zone_id"],
        vm_id=row["vm_id"],
        device_id=row["device_id"] or 0,
        pool_id=row["pool_id"],
        pool=pool,
        path=row["path"],
        size_bytes=row["size_bytes"],
        template_id=row["template_id"],
        disk_offering_id=row["disk_offering_id"],
        job_id=row["job_id"],
        host_id=row["host_id"],
    )
