"""Templates and their copies on secondary storage, as workflows and services read them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    RowMapping,
    String,
    and_,
    bindparam,
    cast,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.host import host, host_operation
from pileus.server.db.tables.job import job
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import template, template_copy, template_permission
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.host import HostState
from pileus.server.domain.storage import COPY, CopyState, VolumeState
from pileus.server.domain.vm import VmState
from pileus.wire.messages import HostKind


@dataclass(frozen=True)
class Copy:
    """A template in one zone's secondary storage. `url` and `sha256` are known once it is Ready; sizes in bytes."""

    id: int
    template_id: int
    zone_id: int
    host_id: int | None
    state: CopyState
    name: str
    url: str | None
    sha256: str | None
    virtual_bytes: int
    physical_bytes: int
    attempts: int


def row(tx: Tx, template_id: int) -> RowMapping:
    """The row of a template, removed ones included."""
    found = tx.one(select(template).where(template.c.id == template_id))
    if found is None:
        raise LookupError(f"no template {template_id}")
    return found


def live(tx: Tx, uuid: str) -> RowMapping | None:
    """A template that is in use, by its UUID."""
    return tx.one(select(template).where(template.c.uuid == uuid, template.c.live == 1))


def id_of(tx: Tx, uuid: str) -> int:
    """The key of a template."""
    return int(tx.scalar(select(template.c.id).where(template.c.uuid == uuid)))


def add(tx: Tx, **values: Any) -> int:
    """A new template."""
    return tx.insert(insert(template).values(created_at=tx.now, **values))


def change(tx: Tx, template_id: int, **values: Any) -> None:
    """Change columns of a template."""
    tx.execute(update(template).where(template.c.id == template_id).values(**values))


def remove(tx: Tx, template_id: int) -> None:
    """Out of use: no list shows it, and nobody may use it any more."""
    change(tx, template_id, live=None, removed_at=tx.now)
    forbid(tx, template_id)


def file_name(tx: Tx, template_id: int) -> str:
    """The name of a template's file on every storage: its UUID, which no other template ever has."""
    row = rows.kept(tx, template, template_id)
    if row is None:
        raise LookupError(f"no template {template_id}")
    return str(row["uuid"])


def copy_in(tx: Tx, template_id: int, zone_id: int) -> Copy | None:
    """The Ready copy of a template in a zone, or None."""
    found = copy_of(tx, template_id, zone_id)
    return found if found is not None and found.state is CopyState.READY else None


def copy_of(tx: Tx, template_id: int, zone_id: int) -> Copy | None:
    """The copy of a template in a zone, whatever its state."""
    row = rows.one(tx, template_copy, template_id=template_id, zone_id=zone_id)
    return _copy(row) if row is not None else None


def copy_by_id(tx: Tx, copy_id: int) -> Copy | None:
    """A copy by its key."""
    row = rows.one(tx, template_copy, id=copy_id)
    return _copy(row) if row is not None else None


def copies_of(tx: Tx, template_id: int, zone_id: int | None = None) -> list[Copy]:
    """All copies of a template, or that of one zone."""
    where = [template_copy.c.template_id == template_id]
    if zone_id is not None:
        where.append(template_copy.c.zone_id == zone_id)
    return [_copy(row) for row in tx.all(select(template_copy).where(*where).order_by(template_copy.c.zone_id))]


def copy_there(tx: Tx, template_id: int, zone_id: int, *, name: str, status: str) -> Copy:
    """The copy of a template in a zone, its row made when it is missing."""
    found = copy_of(tx, template_id, zone_id)
    if found is not None:
        return found
    try:
        with tx.connection.begin_nested():
            tx.execute(
                insert(template_copy).values(
                    template_id=template_id,
                    zone_id=zone_id,
                    state=CopyState.NOT_THERE,
                    status=status,
                    name=name,
                    created_at=tx.now,
                )
            )
    except IntegrityError:
        pass  # Another server made it in this moment.
    found = copy_of(tx, template_id, zone_id)
    if found is None:
        raise LookupError(f"no copy of template {template_id} in zone {zone_id}")
    return found


def move(tx: Tx, copy_id: int, new: CopyState, *, frm: CopyState | None = None, **values: Any) -> bool:
    """Change the state of a copy as its transition table allows."""
    return transition(tx, template_copy, copy_id, COPY, new, frm=frm, **values)


def tell(tx: Tx, copy_id: int, status: str) -> None:
    """Change the sentence that listTemplates shows, where it differs."""
    differs = and_(template_copy.c.id == copy_id, template_copy.c.status != status)
    tx.execute(update(template_copy).where(differs).values(status=status))


def note_operation(tx: Tx, copy_id: int, operation_id: str) -> None:
    """Say where the progress of a download is found."""
    tx.execute(update(template_copy).where(template_copy.c.id == copy_id).values(operation_id=operation_id))


def forget_copy(tx: Tx, copy_id: int) -> None:
    """The image is gone from the zone, and so is its row."""
    gone = and_(template_copy.c.id == copy_id, template_copy.c.state == CopyState.REMOVING)
    tx.execute(template_copy.delete().where(gone))


def store_of(tx: Tx, zone_id: int, *, up: bool) -> int | None:
    """A secondary storage host of a zone; with `up` only one that is connected. The first one added wins."""
    where = [host.c.live == 1, host.c.zone_id == zone_id, host.c.kind == HostKind.SECONDARY_STORAGE]
    if up:
        where.append(host.c.state == HostState.UP)
    found = tx.scalar(select(host.c.id).where(*where).order_by(host.c.id).limit(1))
    return int(found) if found is not None else None


def being_used(tx: Tx, template_id: int, zone_id: int | None) -> bool:
    """Whether a volume is being made from it, or has still to be made for a machine that can start."""
    ended = (VmState.ERROR, VmState.DESTROYED, VmState.EXPUNGING)
    where = [
        volume.c.live == 1,
        volume.c.template_id == template_id,
        or_(
            volume.c.state == VolumeState.CREATING,
            and_(volume.c.state == VolumeState.ALLOCATED, vm.c.live == 1, vm.c.state.not_in(ended)),
        ),
    ]
    if zone_id is not None:
        where.append(volume.c.zone_id == zone_id)
    found = select(volume.c.id).select_from(volume.outerjoin(vm, vm.c.id == volume.c.vm_id)).where(*where).limit(1)
    return tx.scalar(found) is not None


def permitted(tx: Tx, template_id: int) -> list[int]:
    """Accounts the owner lets use a private template."""
    rows = tx.execute(select(template_permission.c.account_id).where(template_permission.c.template_id == template_id))
    return sorted(int(account_id) for account_id in rows.scalars())


def is_permitted(account_id: int) -> ColumnElement[bool]:
    """Condition on `template`: its owner lets this account use it."""
    return template.c.id.in_(
        select(template_permission.c.template_id).where(template_permission.c.account_id == account_id)
    )


def permit(tx: Tx, template_id: int, account_ids: Collection[int]) -> None:
    """Let more accounts use it."""
    for account_id in sorted(set(account_ids) - set(permitted(tx, template_id))):
        tx.execute(insert(template_permission).values(template_id=template_id, account_id=account_id))


def forbid(tx: Tx, template_id: int, account_ids: Collection[int] | None = None) -> None:
    """Let these accounts, or all, use it no more."""
    where = [template_permission.c.template_id == template_id]
    if account_ids is not None:
        where.append(template_permission.c.account_id.in_(account_ids))
    tx.execute(template_permission.delete().where(*where))


def page_of_copies(
    tx: Tx, where: Collection[ColumnElement[bool]], *, offset: int, limit: int
) -> tuple[list[dict[str, Any]], int]:
    """A page of templates, one row per template and zone; both tables' columns, the copy's prefixed with `copy_`.

    A template without any copy is one row whose copy columns are None.
    """
    joined = template.outerjoin(template_copy, template_copy.c.template_id == template.c.id).outerjoin(
        host_operation,
        and_(
            host_operation.c.operation_id == template_copy.c.operation_id,
            template_copy.c.state == CopyState.DOWNLOADING,
        ),
    )
    columns = (
        *template.c,
        *(column.label(f"copy_{column.name}") for column in template_copy.c),
        host_operation.c.percent.label("percent_now"),
    )
    order = (template.c.id, template_copy.c.zone_id)
    rows = tx.all(select(*columns).select_from(joined).where(*where).order_by(*order).offset(offset).limit(limit))
    found = [{str(name): value for name, value in row.items()} for row in rows]
    if len(rows) < limit and (rows or offset == 0):
        return found, offset + len(rows)
    return found, int(tx.scalar(select(func.count()).select_from(joined).where(*where)))


def waiting_copies(tx: Tx, limit: int = 50) -> list[Copy]:
    """Copies of live templates whose download should begin: NotThere, or Failed and due for another attempt, in zones
    whose secondary storage is up."""
    return [_copy(row) for row in _WAITING_COPIES.all(tx, now=tx.now, most=limit)]


_MOST = bindparam("most", type_=Integer)

_WAITING_COPIES = Prepared(
    select(template_copy)
    .join(template, template.c.id == template_copy.c.template_id)
    .where(
        template.c.live == 1,
        template.c.url.is_not(None),
        or_(
            template_copy.c.state == str(CopyState.NOT_THERE),
            and_(template_copy.c.state == str(CopyState.FAILED), template_copy.c.retry_at <= bindparam("now")),
        ),
        template_copy.c.zone_id.in_(
            select(host.c.zone_id).where(
                host.c.live == 1,
                host.c.kind == str(HostKind.SECONDARY_STORAGE),
                host.c.state == str(HostState.UP),
            )
        ),
    )
    .order_by(template_copy.c.id)
    .limit(_MOST)
)


def forgotten_removals(tx: Tx, limit: int = 50) -> list[Copy]:
    """Copies that are Removing although no job is at it any more."""
    return [_copy(row) for row in _FORGOTTEN_REMOVALS.all(tx, most=limit)]


_busy = select(job.c.id).where(
    job.c.open == 1, job.c.resource_key == "template_removal:" + cast(template_copy.c.id, String(20))
)

_FORGOTTEN_REMOVALS = Prepared(
    select(template_copy).where(template_copy.c.state == str(CopyState.REMOVING), ~_busy.exists()).limit(_MOST)
)


def zones_missing(tx: Tx, limit: int = 50) -> list[tuple[int, int]]:
    """(template, zone) pairs of live cross-zone templates that a live zone has no copy row of."""
    return [(int(row["template"]), int(row["zone"])) for row in _ZONES_MISSING.all(tx, most=limit)]


_ZONES_MISSING = Prepared(
    select(template.c.id.label("template"), zone.c.id.label("zone"))
    .select_from(template.join(zone, zone.c.live == 1))
    .outerjoin(template_copy, and_(template_copy.c.template_id == template.c.id, template_copy.c.zone_id == zone.c.id))
    .where(
        template.c.live == 1,
        template.c.cross_zones == 1,
        template.c.url.is_not(None),
        template_copy.c.id.is_(None),
    )
    .limit(_MOST)
)


def _copy(row: Mapping[Any, Any]) -> Copy:
    return Copy(
        id=row["id"],
        template_id=row["template_id"],
        zone_id=row["zone_id"],
        host_id=row["host_id"],
        state=CopyState(row["state"]),
        name=row["name"],
        url=row["url"],
        sha256=row["sha256"],
        virtual_bytes=row["virtual_bytes"],
        physical_bytes=row["physical_bytes"],
        attempts=row["attempts"],
    )
