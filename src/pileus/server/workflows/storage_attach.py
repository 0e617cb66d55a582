"""Hosts attach and detach primary storage."""

from collections.abc import Iterator

from sqlalchemy import select

from pileus.server.config import keys, value
from pileus.server.db.queries import storage_pool as pools
from pileus.server.db.tables.host import host, storage_pool
from pileus.server.db.transition import transition
from pileus.server.domain.host import HostState
from pileus.server.domain.storage import POOL, PoolState
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import StepCall, step, workflow
from pileus.server.workflows.ask import ask, make_sure
from pileus.wire.operations import AttachPool, DetachPool, PoolFacts, RemoveTemplate
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
    if row["live"] is None:
        return
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
    pools.mark_attached(ctx.tx, pool, host)
    transition(ctx.tx, storage_pool, pool, POOL, PoolState.UP, frm=PoolState.INITIAL)


@attach_on_host.undo
def let_go(ctx: StepContext, pool: int, host: int) -> None:
    """The host does not use the pool."""
    row = pools.by_id(ctx.tx, pool)
    make_sure(ctx, host, DetachPool(pool_ref(ctx, pool)), queue=f"pool:{row['uuid']}")
    pools.mark_detached(ctx.tx, pool, host)


@step("storage.remove_copy")
def remove_copy(ctx: StepContext, pool: int, host: int, name: str) -> None:
    """One copy of a template is gone from the pool."""
    row = pools.by_id(ctx.tx, pool)
    make_sure(ctx, host, RemoveTemplate(pool_ref(ctx, pool), name), queue=f"pool:{row['uuid']}")


@remove_copy.undo
def stays_gone(ctx: StepContext, pool: int, host: int, name: str) -> None:
    """A pool that was removed stays removed."""


@step("storage.detach_on_host")
def detach_on_host(ctx: StepContext, pool: int, host: int) -> None:
    """One host lets go of the pool; a host that is gone has let go already."""
    if _is_gone(ctx, host):
        return
    row = pools.by_id(ctx.tx, pool)
    make_sure(ctx, host, DetachPool(pool_ref(ctx, pool)), queue=f"pool:{row['uuid']}")
    pools.mark_detached(ctx.tx, pool, host)


@detach_on_host.undo
def stays_detached(ctx: StepContext, pool: int, host: int) -> None:
    """A pool that was removed stays removed."""


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


def _is_gone(ctx: StepContext, host_id: int) -> bool:
    state = ctx.tx.scalar(select(host.c.state).where(host.c.id == host_id))
    return state is None or state == HostState.REMOVED
