"""One life of a guest on one host: a place is claimed, the host starts it, and the reverse of both.

The life's row is the fence: a new one cannot be stored while an older one is not over, and an older one is over only
when its host has said so, or is down. Steps here are shared by all workflows of guests.
"""

from sqlalchemy import RowMapping

from pileus.server.db import rows
from pileus.server.db.queries import capacity, incarnation
from pileus.server.db.queries import vm as vms
from pileus.server.db.queries import volume as volumes
from pileus.server.db.queries.incarnation import Life
from pileus.server.db.queries.page import related
from pileus.server.db.queries.volume import Disk
from pileus.server.db.tables.offering import disk_offering
from pileus.server.db.tables.volume import volume as volume_table
from pileus.server.domain.errors import ResourceInUse, ResourceUnavailable
from pileus.server.domain.storage import VolumeState
from pileus.server.domain.vm import LifeState
from pileus.server.jobs.context import StepContext, TryElsewhere
from pileus.server.jobs.plan import step
from pileus.server.placement.demand import Demand, DiskDemand, tags_of
from pileus.server.placement.place import must_place
from pileus.server.workflows.ask import HostRefused, HostSilent, ask, make_sure
from pileus.server.workflows.vm_spec import queue_of, spec, stop
from pileus.wire.operations import Reason, StartVm, VmFacts

START_SECONDS = 300
"""How long a host may take to start a guest before another one is tried."""


@step("vm.place")
def place(ctx: StepContext, *, vm: int, host: int | None = None, any_allocation_state: bool = False) -> None:
    """Begin a new life: choose a host, claim its room and the space of every disk that lies nowhere yet."""
    life = incarnation.current(ctx.tx, vm)
    if life is not None and life.state is LifeState.PLANNED:
        return
    row = vms.by_id(ctx.tx, vm)
    if life is not None:
        if life.state is LifeState.LIVE:
            raise ResourceInUse(f"virtual machine {row['name']} runs already")
        end_life(ctx, row, life, label="earlier")
    disks = volumes.of_vm(ctx.tx, vm)
    demand = _demand(ctx, row, disks, host, any_allocation_state=any_allocation_state)
    chosen = must_place(ctx.tx, demand, avoid=ctx.avoid, seed=f"{row['uuid']}:{ctx.round}")
    held = {"cpu_mhz": demand.claim_mhz, "ram_mib": demand.ram_mib}
    planned = incarnation.plan(ctx.tx, vm, host_id=chosen.host_id, job_id=ctx.job_id, **held)
    for disk in disks:
        if disk.pool_id is None:
            # A new round gets a new file name: it never meets what an old one may have left on the same pool.
            _lay(ctx, disk, pool_id=chosen.pools[disk.id], path=f"{disk.uuid}-{planned.epoch}")


@place.undo
def give_back(ctx: StepContext, *, vm: int, host: int | None = None, any_allocation_state: bool = False) -> None:
    """End the life, and give back what it holds of its host and what its unmade disks hold of their pools."""
    life = incarnation.current(ctx.tx, vm)
    if life is not None and life.job_id == ctx.job_id:
        incarnation.over(ctx.tx, life)
    for disk in volumes.of_vm(ctx.tx, vm):
        if disk.pool_id is not None and disk.state is VolumeState.ALLOCATED:
            capacity.release_pool(ctx.tx, disk.pool_id, disk.size_bytes)
            _lay(ctx, disk, pool_id=None, path=None)


@step("vm.start_on_host")
def start_on_host(ctx: StepContext, *, vm: int) -> None:
    """Have the host run the planned life. Its refusal or silence sends the job elsewhere."""
    life = incarnation.current(ctx.tx, vm)
    if life is None:
        raise ResourceUnavailable("no host was chosen for the virtual machine")
    if life.state is LifeState.LIVE:
        return
    row = vms.by_id(ctx.tx, vm)

    def order() -> StartVm:
        return StartVm(spec(ctx.tx, row, life))

    try:
        facts = ask(ctx, life.host_id, order, queue=queue_of(row), deadline_seconds=START_SECONDS)
    except HostSilent as silent:
        raise TryElsewhere(f"host:{life.host_id}", "it did not answer") from silent
    except HostRefused as refused:
        raise _verdict(refused, life.host_id) from refused
    if not isinstance(facts, VmFacts):
        raise TypeError(f"{facts} answers no StartVm")
    incarnation.live(ctx.tx, life, vnc_host=facts.vnc_host, vnc_port=facts.vnc_port)


@start_on_host.undo
def take_off(ctx: StepContext, *, vm: int) -> None:
    """Make sure that this life does not run, whatever became of its start."""
    life = incarnation.current(ctx.tx, vm)
    if life is None or life.job_id != ctx.job_id:
        return
    incarnation.ending(ctx.tx, life)
    row = vms.by_id(ctx.tx, vm)
    make_sure(ctx, life.host_id, stop(row, life.epoch, forced=True), queue=queue_of(row))


def end_life(ctx: StepContext, row: RowMapping, life: Life, *, forced: bool = True, label: str = "") -> None:
    """Make sure that a life is over; naps until its host has said so or is down."""
    incarnation.ending(ctx.tx, life)
    make_sure(ctx, life.host_id, stop(row, life.epoch, forced=forced), queue=queue_of(row), label=label)
    incarnation.over(ctx.tx, life)


def _demand(
    ctx: StepContext, row: RowMapping, disks: list[Disk], host: int | None, *, any_allocation_state: bool
) -> Demand:
    offering = vms.offering_of(ctx.tx, row)
    disk_offerings = related(ctx.tx, disk_offering, (disk.disk_offering_id for disk in disks))
    wanted = []
    for disk in disks:
        of = disk_offerings.get(disk.disk_offering_id or 0)
        tags = tags_of(of["tags"] if of is not None else offering["tags"])
        wanted.append(DiskDemand(disk.id, disk.size_bytes, tags, disk.pool_id))
    return Demand(
        name=f"virtual machine {row['name']}",
        zone_id=row["zone_id"],
        cpus=offering["cpus"],
        cpu_mhz=offering["cpu_mhz"],
        ram_mib=offering["ram_mib"],
        hypervisor=row["hypervisor"],
        host_tag=offering["host_tag"] or None,
        host_id=host,
        rather=row["last_host_id"],
        disks=tuple(wanted),
        any_allocation_state=any_allocation_state,
        os_type_id=row["os_type_id"],
        account_id=row["account_id"],
    )


def _lay(ctx: StepContext, disk: Disk, *, pool_id: int | None, path: str | None) -> None:
    rows.change(ctx.tx, volume_table, {"id": disk.id}, pool_id=pool_id, path=path)


def _verdict(refused: HostRefused, host_id: int) -> Exception:
    reason, text = refused.refusal.reason, refused.refusal.text
    if reason in (Reason.REJECTED, Reason.STALE_EPOCH):
        return ResourceUnavailable(text)
    return TryElsewhere(f"host:{host_id}", text)
