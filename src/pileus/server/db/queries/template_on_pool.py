"""Templates on primary pools: fetched once, by one job, for all. Every change is a compare-and-set.

A row means that the pool may hold the file: it goes only after a host has said that the file is gone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, and_, bindparam, delete, or_, select, update
from sqlalchemy.exc import IntegrityError

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.host import host_operation
from pileus.server.db.tables.job import job
from pileus.server.db.tables.template import template
from pileus.server.db.tables.template import template_on_pool as table
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.storage import CopyState
from pileus.wire.operations import FetchTemplate


@dataclass(frozen=True)
class OnPool:
    """A template on a pool; `job_id` fetches or fetched it, through `host_id`."""

    template_id: int
    pool_id: int
    state: CopyState
    name: str
    job_id: int | None
    host_id: int | None

    @property
    def topic(self) -> str:
        """What jobs nap on that wait for this template."""
        return topic(self.template_id, self.pool_id)

    def fetched_by(self, job_id: int) -> bool:
        """Whether this job is fetching it now."""
        return self.state is CopyState.DOWNLOADING and self.job_id == job_id


def topic(template_id: int, pool_id: int) -> str:
    """What jobs nap on that wait for this template on this pool."""
    return f"template:{template_id}:{pool_id}"


def there(tx: Tx, template_id: int, pool_id: int, *, name: str) -> OnPool:
    """The row, made on first use."""
    found = get(tx, template_id, pool_id)
    if found is not None:
        return found
    try:
        with tx.connection.begin_nested():
            state = str(CopyState.NOT_THERE)
            rows.put(tx, table, template_id=template_id, pool_id=pool_id, state=state, name=name, used_at=tx.now)
    except IntegrityError:
        found = get(tx, template_id, pool_id)
        if found is not None:
            return found
        raise
    return OnPool(template_id, pool_id, CopyState.NOT_THERE, name, None, None)


def get(tx: Tx, template_id: int, pool_id: int) -> OnPool | None:
    """The row, or None."""
    row = rows.one(tx, table, template_id=template_id, pool_id=pool_id)
    return None if row is None else _on_pool(row)


def of_template(tx: Tx, template_id: int) -> list[OnPool]:
    """All pools that may hold the template."""
    found = tx.all(select(table).where(table.c.template_id == template_id).order_by(table.c.pool_id))
    return [_on_pool(row) for row in found]


def claim(tx: Tx, on_pool: OnPool, *, job_id: int, host_id: int) -> bool:
    """Become the one that fetches it: from NotThere or Failed, or from a job that has ended."""
    ended = and_(
        table.c.state == CopyState.DOWNLOADING,
        ~select(job.c.id).where(job.c.id == table.c.job_id, job.c.open == 1).exists(),
    )
    free = table.c.state.in_((CopyState.NOT_THERE, CopyState.FAILED))
    return _change(tx, on_pool, or_(free, ended), state=CopyState.DOWNLOADING, job_id=job_id, host_id=host_id)


def fetched(tx: Tx, on_pool: OnPool, *, job_id: int, virtual_bytes: int, physical_bytes: int) -> bool:
    """Downloading → Ready, if it is still this job that fetches."""
    mine = and_(table.c.state == CopyState.DOWNLOADING, table.c.job_id == job_id)
    return _change(
        tx,
        on_pool,
        mine,
        state=CopyState.READY,
        virtual_bytes=virtual_bytes,
        physical_bytes=physical_bytes,
        used_at=tx.now,
    )


def lost(tx: Tx, on_pool: OnPool) -> bool:
    """Ready → NotThere: a host of the pool has no such file."""
    return _change(tx, on_pool, table.c.state == CopyState.READY, state=CopyState.NOT_THERE)


def used(tx: Tx, on_pool: OnPool) -> bool:
    """Note that a volume is made from it now; False when it was Ready no more."""
    where = {"template_id": on_pool.template_id, "pool_id": on_pool.pool_id, "state": str(CopyState.READY)}
    return rows.change(tx, table, where, used_at=tx.now) == 1


def give_back(tx: Tx, job_id: int) -> list[str]:
    """Free every claim of a job; returns the topics to wake."""
    mine = and_(table.c.state == CopyState.DOWNLOADING, table.c.job_id == job_id)
    found = tx.all(select(table.c.template_id, table.c.pool_id).where(mine))
    if found:
        tx.execute(update(table).where(mine).values(state=CopyState.NOT_THERE))
    return [topic(row["template_id"], row["pool_id"]) for row in found]


def unanswered_fetches(tx: Tx, job_id: int) -> list[str]:
    """Operations with which a job asked for templates and got no answer yet."""
    found = tx.execute(
        select(host_operation.c.operation_id).where(
            host_operation.c.pending == 1,
            host_operation.c.job_id == job_id,
            host_operation.c.kind == FetchTemplate.__name__,
        )
    )
    return [str(operation_id) for operation_id in found.scalars()]


def remove(tx: Tx, on_pool: OnPool, *, used_before: int) -> bool:
    """Any state but Downloading → Removing, unless a volume of the pool needs it: nobody may use it any more."""
    states = (CopyState.NOT_THERE, CopyState.READY, CopyState.FAILED)
    idle = and_(table.c.state.in_(states), table.c.used_at < used_before, ~_needed().exists())
    return _change(tx, on_pool, idle, state=CopyState.REMOVING)


def unremove(tx: Tx, on_pool: OnPool) -> bool:
    """Removing → NotThere: it could not be removed for certain."""
    return _change(tx, on_pool, table.c.state == CopyState.REMOVING, state=CopyState.NOT_THERE)


def unneeded(tx: Tx, *, deleted: bool, limit: int = 50) -> list[OnPool]:
    """Templates (deleted ones, or live ones) on pools whose volumes do not need them, the longest unused first."""
    return [_on_pool(row) for row in _unneeded(deleted=deleted).all(tx, most=limit)]


@cache
def _unneeded(*, deleted: bool) -> Prepared:
    return Prepared(
        select(table)
        .join(template, template.c.id == table.c.template_id)
        .where(
            template.c.live.is_(None) if deleted else template.c.live == 1,
            table.c.state.in_([str(state) for state in (CopyState.NOT_THERE, CopyState.READY, CopyState.FAILED)]),
            ~_needed().exists(),
        )
        .order_by(table.c.used_at)
        .limit(bindparam("most", type_=Integer))
    )


def forget(tx: Tx, on_pool: OnPool) -> None:
    """The file is gone, and so is the row."""
    tx.execute(delete(table).where(_is(on_pool.template_id, on_pool.pool_id), table.c.state == CopyState.REMOVING))


def _needed() -> Select[Any]:
    """Volumes of the same pool that are or will be clones of it."""
    return select(volume.c.id).where(
        volume.c.live == 1, volume.c.pool_id == table.c.pool_id, volume.c.template_id == table.c.template_id
    )


def _on_pool(row: Mapping[Any, Any]) -> OnPool:
    return OnPool(
        row["template_id"], row["pool_id"], CopyState(row["state"]), row["name"], row["job_id"], row["host_id"]
    )


def _is(template_id: int, pool_id: int) -> ColumnElement[bool]:
    return and_(table.c.template_id == template_id, table.c.pool_id == pool_id)


def _change(tx: Tx, on_pool: OnPool, when: ColumnElement[bool], **values: object) -> bool:
    statement = update(table).where(_is(on_pool.template_id, on_pool.pool_id), when).values(**values)
    return tx.execute(statement).rowcount == 1
