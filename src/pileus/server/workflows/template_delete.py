"""A template goes: at once from all lists, then from secondary storage, and from each pool once no volume needs it.

Deleting is bookkeeping: files are removed by jobs of their own, so nobody waits for a storage host that is down.
"""

from pileus.server import events
from pileus.server.db.queries import count, template_on_pool
from pileus.server.db.queries import template as templates
from pileus.server.db.queries import volume as volumes
from pileus.server.db.queries.template import Copy
from pileus.server.db.queries.template_on_pool import OnPool
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Resource
from pileus.server.domain.errors import ResourceInUse, ResourceUnavailable
from pileus.server.domain.storage import CopyState
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.jobs.reconciler import trigger
from pileus.server.jobs.submit import submit, wake
from pileus.server.workflows.ask import make_sure
from pileus.server.workflows.template_download import KIND, SYSTEM
from pileus.wire.operations import DeleteImage, RemoveTemplate

CLEANUP = "template-cleanup"
"""The reconciler that removes templates from pools."""


@workflow("template.delete")
def delete_template(*, template: int, zone: int | None) -> Parts:
    """Delete a template in one zone, or everywhere."""
    yield deleted(template=template, zone=zone)


@workflow("template.remove_copy")
def remove_copy(*, copy: int) -> Parts:
    """Remove a template's image from the secondary storage of a zone."""
    yield copy_removed(copy=copy)


@workflow("template.evict")
def evict(*, template: int, pool: int) -> Parts:
    """Remove a template from a pool."""
    yield evicted(template=template, pool=pool)


@step("template.deleted")
def deleted(ctx: StepContext, *, template: int, zone: int | None) -> None:
    """The template is in no list any more; with `zone` it only leaves that zone, unless it was nowhere else."""
    row = templates.row(ctx.tx, template)
    if row["live"] is None:
        return
    require_unused(ctx.tx, template, zone)
    copies = templates.copies_of(ctx.tx, template)
    going = [copy for copy in copies if zone is None or copy.zone_id == zone]
    for copy in going:
        _let_go(ctx.tx, copy)
    if len(going) == len(copies):
        templates.remove(ctx.tx, template)
        count.release(ctx.tx, row["account_id"], Resource.TEMPLATE)
        trigger(ctx.tx, CLEANUP)
    else:
        # It may not come back to the zone it was deleted in.
        templates.change(ctx.tx, template, cross_zones=0)
    events.record(
        ctx.tx,
        type=events.types.TEMPLATE_DELETE,
        description=f"Deleted template {row['name']}",
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=ctx.user_id,
        resource_kind=KIND,
        resource_id=template,
        zone_id=zone,
        start_id=ctx.start_event_id,
        facts={"template_id": template, "zone_id": zone},
    )


@deleted.undo
def stays_deleted(ctx: StepContext, *, template: int, zone: int | None) -> None:
    """The only step: it either was done with its commit, or left nothing."""


@step("template.copy_removed")
def copy_removed(ctx: StepContext, *, copy: int) -> None:
    """The image is gone, and so is the row of the copy."""
    known = templates.copy_by_id(ctx.tx, copy)
    if known is None or known.state is not CopyState.REMOVING:
        return
    if known.host_id is not None:
        make_sure(ctx, known.host_id, DeleteImage(known.name), queue=f"image:{known.name}", label="image")
    templates.forget_copy(ctx.tx, copy)


@copy_removed.undo
def stays_removing(ctx: StepContext, *, copy: int) -> None:
    """It may be gone already: the reconciler tries again."""


@step("template.evicted")
def evicted(ctx: StepContext, *, template: int, pool: int) -> None:
    """The file is gone from the pool, and so is the row."""
    on_pool = template_on_pool.get(ctx.tx, template, pool)
    if on_pool is None or on_pool.state is not CopyState.REMOVING:
        return
    reference = volumes.pool_reference(ctx.tx, pool)
    if reference is not None:
        host_id = volumes.host_for_pool(ctx.tx, pool, rather=on_pool.host_id)
        if host_id is None:
            raise ResourceUnavailable("no host reaches the storage pool")
        queue = f"pool:{reference.uuid}:{on_pool.name}"
        make_sure(ctx, host_id, RemoveTemplate(reference, on_pool.name), queue=queue, label=f"host-{host_id}")
    template_on_pool.forget(ctx.tx, on_pool)
    wake(ctx.tx, on_pool.topic)
    row = templates.row(ctx.tx, template)
    events.record(
        ctx.tx,
        type=events.types.TEMPLATE_CLEANUP,
        description=f"Removed template {row['name']} from primary storage, where no volume needed it",
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=ctx.user_id,
        resource_kind=KIND,
        resource_id=template,
        facts={"template_id": template, "pool_id": pool},
    )


@evicted.undo
def not_evicted(ctx: StepContext, *, template: int, pool: int) -> None:
    """Nobody knows whether the file is there: the next one who needs it fetches it."""
    on_pool = template_on_pool.get(ctx.tx, template, pool)
    if on_pool is not None and template_on_pool.unremove(ctx.tx, on_pool):
        wake(ctx.tx, on_pool.topic)


def require_unused(tx: Tx, template_id: int, zone_id: int | None) -> None:
    """`ResourceInUse` while a volume is still to be made from it."""
    if templates.being_used(tx, template_id, zone_id):
        raise ResourceInUse("volumes are being made from this template")


def begin_removal(tx: Tx, copy: Copy) -> None:
    """Submit the job that removes a copy which is Removing."""
    submit(
        tx, remove_copy(copy=copy.id), SYSTEM, command="removeTemplateCopy", resource_key=f"template_removal:{copy.id}"
    )


def begin_eviction(tx: Tx, on_pool: OnPool, *, used_before: int) -> bool:
    """Start to remove a template from a pool, unless a volume there needs it or it was used since `used_before`."""
    if not template_on_pool.remove(tx, on_pool, used_before=used_before):
        return False
    submit(
        tx,
        evict(template=on_pool.template_id, pool=on_pool.pool_id),
        SYSTEM,
        command="evictTemplate",
        resource_key=on_pool.topic,
    )
    return True


def _let_go(tx: Tx, copy: Copy) -> None:
    if templates.move(tx, copy.id, CopyState.REMOVING, operation_id=None, status="being removed"):
        begin_removal(tx, copy)
