"""Hosts attach and detach primary storage.

A row in storage_pool_host says that a host was asked to attach; it stays until the host has let go. What a host
refuses to let go of when a pool is removed stays as it is: the pool is forgotten all the same, and an event says so.
"""

from collections.abc import Iterator

from sqlalchemy import RowMapping, select

from pileus.server.config import keys, value
from pileus.server.db import rows
from pileus.server.db.queries import storage_pool as pools
from pileus.server.db.tables.host import host as host_rows
from pileus.server.db.tables.host import storage_pool
from pileus.server.db.transition import transition
from pileus.server.domain.host import HostState
from pileus.server.domain.storage import POOL, PoolState
from pileus.server.events import record, types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import StepCall, step, workflow
from pileus.server.workflows.ask import HostRefused, ask, make_sure
from pileus.wire.operations import AnyOperation, AttachPool, DetachPool, PoolFacts, RemoveTemplate
from pileus.wire.places import PoolKind, PoolRef


@workflow("storage.attach")
def attach_pool(pool: int, host: int) -> Iterator[StepCall]:
    """Have one host use the pool and learn its size."""
    yield attach_on_host(pool=pool, host=host)


@workflow("storage.detach")
def detach_pool(pool: int, hosts: list[int], templates: list[str]) -> Iterator[StepCall]:
    """Remove the copies of templates from a removed pool, and let every host go of it."""
    if hosts:
        for name in templates:
            yield remove_copy(pool=pool, host=hosts[0], name=name)
    for each in hosts:
        yield detach_on_host(pool=pool, host=each)
    yield forget_pool(pool=pool)


@step("storage.attach_on_host")
def attach_on_host(ctx: StepContext, pool: int, host: int) -> None:
    """Attach, and open the pool for volumes at the first success."""
    row = pools.by_id(ctx.tx, pool)
    # The removal of a pool asks every host that has a row, in the same queue, so nothing is left to do here.
    if row["live"] is None or _is_gone(ctx, host):
        return
    pools.expect(ctx.tx, pool, host)
    facts = ask(ctx, host, AttachPool(pool_ref(ctx, pool)), queue=f"pool:{row['uuid']}")
    assert isinstance(facts, PoolFacts)  # noqa: S101 (the operation answers nothing else)
    factor = 1.0
    if row["kind"] == PoolKind.NETWORK_FILESYSTEM:
        factor = float(value(ctx.tx, keys.storage_overprovisioning_factor))
    pools.change(
        ctx.tx,
        pool,
        capacity_bytes=facts.capacity_bytes,
        available_bytes=facts.available_bytes,
        allocatable_bytes=int(facts.capacity_bytes * factor),
    )
    pools.set_attached(ctx.tx, pool, host, attached=True)
    transition(ctx.tx, storage_pool, pool, POOL, PoolState.UP, frm=PoolState.INITIAL)
    if ctx.start_event_id is not None:
        name = ctx.tx.scalar(select(host_rows.c.name).where(host_rows.c.id == host))
        text = f"Attached primary storage {row['name']} to host {name}"
        _event(ctx, row, types.PRIMARY_STORAGE_CREATE, text, start_id=ctx.start_event_id)


@attach_on_host.undo
def let_go(ctx: StepContext, pool: int, host: int) -> None:
    """The host does not use the pool; but storage is not taken from under guests that run on it."""
    row = pools.by_id(ctx.tx, pool)
    pools.set_attached(ctx.tx, pool, host, attached=False)
    if pools.volumes_on_host(ctx.tx, pool, host):
        return
    make_sure(ctx, host, DetachPool(pool_ref(ctx, pool)), queue=f"pool:{row['uuid']}")
    pools.mark_detached(ctx.tx, pool, host)


@step("storage.remove_copy")
def remove_copy(ctx: StepContext, pool: int, host: int, name: str) -> None:
    """One copy of a template is gone from the pool."""
    _as_far_as_it_goes(ctx, pool, host, RemoveTemplate(pool_ref(ctx, pool), name))
    pools.forget_copy(ctx.tx, pool, name)


@remove_copy.undo
def stays_gone(ctx: StepContext, pool: int, host: int, name: str) -> None:
    """A pool that was removed stays removed."""


@step("storage.detach_on_host")
def detach_on_host(ctx: StepContext, pool: int, host: int) -> None:
    """One host lets go of the pool; a host that is gone has let go already."""
    _as_far_as_it_goes(ctx, pool, host, DetachPool(pool_ref(ctx, pool)))
    pools.mark_detached(ctx.tx, pool, host)


@detach_on_host.undo
def stays_detached(ctx: StepContext, pool: int, host: int) -> None:
    """A pool that was removed stays removed; the reconciler of storage begins anew with what is left."""


@step("storage.forget")
def forget_pool(ctx: StepContext, pool: int) -> None:
    """Nothing refers to the pool any more."""
    pools.forget(ctx.tx, pool)


@forget_pool.undo
def stays_forgotten(ctx: StepContext, pool: int) -> None:
    """A pool that was removed stays removed."""


def pool_ref(ctx: StepContext, pool: int) -> PoolRef:
    """The pool as hosts know it."""
    row = pools.by_id(ctx.tx, pool)
    return PoolRef(uuid=row["uuid"], kind=PoolKind(row["kind"]), path=row["path"], server=row["server"])


def _as_far_as_it_goes(ctx: StepContext, pool: int, host: int, operation: AnyOperation) -> None:
    row = pools.by_id(ctx.tx, pool)
    try:
        make_sure(ctx, host, operation, queue=f"pool:{row['uuid']}")
    except HostRefused as refused:
        text = f"A host did not let go of primary storage {row['name']}: {refused.text}"
        _event(ctx, row, types.PRIMARY_STORAGE_DELETE, text, level="WARN")


def _event(
    ctx: StepContext, row: RowMapping, type: str, text: str, *, level: str = "INFO", start_id: int | None = None
) -> None:
    record(
        ctx.tx,
        type=type,
        description=text,
        account_id=ctx.account_id,
        domain_id=ctx.domain_id,
        user_id=ctx.user_id,
        level=level,
        resource_kind="StoragePool",
        resource_id=row["id"],
        zone_id=row["zone_id"],
        start_id=start_id,
    )


def _is_gone(ctx: StepContext, host_id: int) -> bool:
    row = rows.one(ctx.tx, host_rows, id=host_id)
    return row is None or row["state"] == HostState.REMOVED
