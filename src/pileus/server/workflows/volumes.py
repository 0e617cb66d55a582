"""The volumes of a VM: made before it starts, deleted when it is expunged.

A template comes to a pool on first use. The first job that needs it fetches it for all; the others nap until it is
there. A volume's file is made and deleted in one queue of one host, so a late creation cannot outlive its deletion.
"""

from dataclasses import replace

from sqlalchemy import update

from pileus.server import events
from pileus.server.config import keys, value
from pileus.server.db.queries import count, template_on_pool
from pileus.server.db.queries import template as templates
from pileus.server.db.queries import volume as volumes
from pileus.server.db.queries.template_on_pool import OnPool
from pileus.server.db.queries.volume import Disk
from pileus.server.db.tables.volume import volume as volume_table
from pileus.server.db.transition import transition
from pileus.server.domain.account import Resource
from pileus.server.domain.errors import ResourceInUse, ResourceUnavailable
from pileus.server.domain.storage import VOLUME, VolumeKind, VolumeState
from pileus.server.hosts import operations
from pileus.server.jobs.context import Nap, StepContext, TryElsewhere
from pileus.server.jobs.plan import step
from pileus.server.jobs.submit import wake
from pileus.server.workflows.ask import HostRefused, HostSilent, ask, make_sure
from pileus.wire.operations import CreateVolume, DeleteVolume, FetchTemplate, ImageFacts, Reason
from pileus.wire.places import PoolRef

CREATE_SECONDS = 600.0

_LOOK_AGAIN_SECONDS = 60.0


@step("volumes.ready")
def volumes_ready(ctx: StepContext, *, vm: int) -> None:
    """Have the file of every volume of the VM in its pool, through the host of the VM's planned life."""
    host_id = volumes.planned_host(ctx.tx, vm)
    if host_id is None:
        raise ResourceUnavailable("no host was chosen for the virtual machine")
    for disk in volumes.of_vm(ctx.tx, vm):
        if disk.state is not VolumeState.READY:
            _make(ctx, disk, host_id)


@volumes_ready.undo
def volumes_unmade(ctx: StepContext, *, vm: int) -> None:
    """Delete what this job made, and let other jobs fetch what it was fetching."""
    for operation_id in template_on_pool.unanswered_fetches(ctx.tx, ctx.job_id):
        operations.withdraw(ctx.tx, operation_id, "its job gave up waiting")
    wake(ctx.tx, *template_on_pool.give_back(ctx.tx, ctx.job_id))
    for disk in volumes.of_vm(ctx.tx, vm):
        if disk.job_id == ctx.job_id and disk.state in (VolumeState.CREATING, VolumeState.READY):
            _unmake(ctx, disk)


@step("volumes.gone")
def volumes_gone(ctx: StepContext, *, vm: int) -> None:
    """Delete the VM's root volume; let go of its data disks, which stay."""
    for disk in volumes.of_vm(ctx.tx, vm):
        if disk.kind is VolumeKind.ROOT:
            _destroy(ctx, disk)
        else:
            _detach(ctx, disk)


@volumes_gone.undo
def volumes_stay_gone(ctx: StepContext, *, vm: int) -> None:
    """A deletion cannot be taken back: what was begun is brought to its end."""
    volumes_gone.do(ctx, vm=vm)


@step("volume.gone")
def volume_gone(ctx: StepContext, *, volume: int) -> None:
    """Delete one volume that hangs on no VM."""
    disk = volumes.by_id(ctx.tx, volume)
    if disk is None:
        return
    if disk.vm_id is not None:
        raise ResourceInUse(f"volume {disk.name} hangs on a virtual machine")
    _destroy(ctx, disk)


@volume_gone.undo
def volume_stays_gone(ctx: StepContext, *, volume: int) -> None:
    """A deletion cannot be taken back: what was begun is brought to its end."""
    disk = volumes.by_id(ctx.tx, volume)
    if disk is not None and disk.state is VolumeState.DESTROY:
        _destroy(ctx, disk)


def _make(ctx: StepContext, disk: Disk, host_id: int) -> None:
    if disk.pool is None or disk.pool_id is None or disk.path is None:
        raise ResourceUnavailable(f"no storage pool was chosen for volume {disk.name}")
    if disk.state is VolumeState.ALLOCATED:
        transition(
            ctx.tx,
            volume_table,
            disk.id,
            VOLUME,
            VolumeState.CREATING,
            frm=VolumeState.ALLOCATED,
            job_id=ctx.job_id,
            host_id=host_id,
        )
    elif disk.state is not VolumeState.CREATING or disk.job_id != ctx.job_id:
        raise ResourceUnavailable(f"volume {disk.name} is {disk.state} and cannot be given to a virtual machine")
    on_pool = _template_there(ctx, disk, disk.pool, host_id) if disk.template_id is not None else None
    order = CreateVolume(disk.pool, disk.path, disk.size_bytes, on_pool.name if on_pool else "")
    # Who fetched the template is part of the label: after a new fetch the question is a new one.
    label = f"make-{disk.id}-{on_pool.job_id if on_pool else 0}"
    try:
        facts = ask(ctx, host_id, order, queue=disk.queue, label=label, deadline_seconds=CREATE_SECONDS)
    except HostSilent as silent:
        raise TryElsewhere(f"host:{host_id}", "the host did not answer") from silent
    except HostRefused as refused:
        missing = refused.refusal.reason is Reason.MISSING
        if missing and on_pool and on_pool.job_id != ctx.job_id and template_on_pool.lost(ctx.tx, on_pool):
            raise Nap(0.0) from refused  # The pool lost its copy; this job fetches it anew.
        raise _verdict(refused, host_id, disk.pool_id) from refused
    if not isinstance(facts, ImageFacts):
        raise TypeError(f"{facts} answers no CreateVolume")
    _made(ctx, disk, disk.pool_id, facts)


def _made(ctx: StepContext, disk: Disk, pool_id: int, facts: ImageFacts) -> None:
    ready = transition(
        ctx.tx,
        volume_table,
        disk.id,
        VOLUME,
        VolumeState.READY,
        frm=VolumeState.CREATING,
        size_bytes=facts.virtual_bytes,
    )
    if not ready:
        raise ResourceUnavailable(f"volume {disk.name} changed while it was being made")
    if facts.virtual_bytes != disk.size_bytes:
        volumes.change_claim(ctx.tx, pool_id, facts.virtual_bytes - disk.size_bytes)
    _event(ctx, events.types.VOLUME_CREATE, f"Created volume {disk.name}", disk, size=facts.virtual_bytes)


def _template_there(ctx: StepContext, disk: Disk, pool: PoolRef, host_id: int) -> OnPool:
    """The template on the volume's pool, ready to be cloned; naps while it is being fetched."""
    if disk.template_id is None or disk.pool_id is None:
        raise ValueError("the volume has no template or no pool")
    name = templates.file_name(ctx.tx, disk.template_id)
    on_pool = template_on_pool.there(ctx.tx, disk.template_id, disk.pool_id, name=name)
    if template_on_pool.used(ctx.tx, on_pool):
        return on_pool
    mine = on_pool.fetched_by(ctx.job_id)
    if not mine and not template_on_pool.claim(ctx.tx, on_pool, job_id=ctx.job_id, host_id=host_id):
        raise Nap(_LOOK_AGAIN_SECONDS, topic=on_pool.topic)
    copy = templates.copy_in(ctx.tx, disk.template_id, disk.zone_id)
    if copy is None or copy.url is None or copy.sha256 is None:
        raise ResourceUnavailable("the template is not ready on the secondary storage of this zone")
    order = FetchTemplate(pool, on_pool.name, copy.url, copy.sha256)
    queue = f"pool:{pool.uuid}:{on_pool.name}"
    label = f"fetch-{disk.template_id}-{disk.pool_id}"
    patience = float(value(ctx.tx, keys.primary_storage_download_wait))
    try:
        facts = ask(ctx, host_id, order, queue=queue, label=label, deadline_seconds=patience)
    except HostSilent as silent:
        raise TryElsewhere(f"host:{host_id}", "the host did not answer") from silent
    except HostRefused as refused:
        raise _verdict(refused, host_id, disk.pool_id) from refused
    if not isinstance(facts, ImageFacts):
        raise TypeError(f"{facts} answers no FetchTemplate")
    template_on_pool.fetched(
        ctx.tx,
        on_pool,
        job_id=ctx.job_id,
        virtual_bytes=facts.virtual_bytes,
        physical_bytes=facts.physical_bytes,
    )
    wake(ctx.tx, on_pool.topic)
    return replace(on_pool, job_id=ctx.job_id)


def _verdict(refused: HostRefused, host_id: int, pool_id: int) -> Exception:
    reason, text = refused.refusal.reason, refused.refusal.text
    match reason:
        case Reason.REJECTED:
            return ResourceUnavailable(text)
        case Reason.NO_ROOM | Reason.MISSING:
            return TryElsewhere(f"pool:{pool_id}", text)
        case _:
            return TryElsewhere(f"host:{host_id}", text)


def _unmake(ctx: StepContext, disk: Disk) -> None:
    if disk.pool is not None and disk.path is not None and disk.host_id is not None:
        order = DeleteVolume(disk.pool, disk.path)
        make_sure(ctx, disk.host_id, order, queue=disk.queue, label=f"unmake-{disk.id}")
    transition(
        ctx.tx,
        volume_table,
        disk.id,
        VOLUME,
        VolumeState.ALLOCATED,
        frm=disk.state,
        path=None,
        job_id=None,
        host_id=None,
    )
    if disk.state is VolumeState.READY:
        _event(ctx, events.types.VOLUME_DELETE, f"Deleted volume {disk.name}", disk, size=disk.size_bytes)


def _destroy(ctx: StepContext, disk: Disk) -> None:
    if disk.state is not VolumeState.DESTROY:
        transition(ctx.tx, volume_table, disk.id, VOLUME, VolumeState.DESTROY, frm=disk.state)
    if disk.pool_id is not None and disk.pool is not None and disk.path is not None and disk.host_id is not None:
        host_id = volumes.host_for_pool(ctx.tx, disk.pool_id, rather=disk.host_id) or disk.host_id
        order = DeleteVolume(disk.pool, disk.path)
        make_sure(ctx, host_id, order, queue=disk.queue, label=f"delete-{disk.id}-{host_id}")
    transition(
        ctx.tx,
        volume_table,
        disk.id,
        VOLUME,
        VolumeState.EXPUNGED,
        frm=VolumeState.DESTROY,
        live=None,
        removed_at=ctx.tx.now,
    )
    if disk.pool_id is not None:
        volumes.change_claim(ctx.tx, disk.pool_id, -disk.size_bytes)
    count.release(ctx.tx, disk.account_id, Resource.VOLUME)
    if disk.host_id is not None:  # One that was never made was never told of.
        _event(ctx, events.types.VOLUME_DELETE, f"Deleted volume {disk.name}", disk, size=disk.size_bytes)


def _detach(ctx: StepContext, disk: Disk) -> None:
    ctx.tx.execute(
        update(volume_table).where(volume_table.c.id == disk.id).values(vm_id=None, device_id=None, attached_at=None)
    )
    _event(ctx, events.types.VOLUME_DETACH, f"Detached volume {disk.name}", disk, size=disk.size_bytes)


def _event(ctx: StepContext, kind: str, description: str, disk: Disk, *, size: int) -> None:
    events.record(
        ctx.tx,
        type=kind,
        description=description,
        account_id=disk.account_id,
        domain_id=disk.domain_id,
        user_id=ctx.user_id,
        resource_kind="Volume",
        resource_id=disk.id,
        zone_id=disk.zone_id,
        facts={
            "size": size,
            "kind": str(disk.kind),
            "template_id": disk.template_id,
            "disk_offering_id": disk.disk_offering_id,
        },
    )
