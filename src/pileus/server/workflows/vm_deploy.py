"""Deploying a guest: its rows are there when the job begins, and are gone again when it fails."""

from sqlalchemy import update

from pileus.server.db.queries import count
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import vm as vms
from pileus.server.db.queries import volume as volumes
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.db.tables.volume import volume as volume_table
from pileus.server.db.transition import transition
from pileus.server.domain.account import Resource
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.storage import VOLUME, VolumeState
from pileus.server.domain.vm import VM, VmState
from pileus.server.elements import virtual_router
from pileus.server.events import types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, try_elsewhere, workflow
from pileus.server.jobs.reconciler import trigger
from pileus.server.workflows.network_ready import network_ready
from pileus.server.workflows.vm_life import place, start_on_host
from pileus.server.workflows.vm_record import began, completed, happened, stopped
from pileus.server.workflows.volumes import volumes_ready


@workflow("vm.deploy")
def deploy_vm(*, vm: int, networks: list[int], host: int | None, any_allocation_state: bool) -> Parts:
    """Create a guest and start it."""
    yield created(vm=vm)
    yield try_elsewhere(
        place(vm=vm, host=host, any_allocation_state=any_allocation_state),
        # Meanwhile the routers are told of it, so that there is little to wait for afterwards.
        volumes_ready(vm=vm),
        *(network_ready(network=network, vm=vm) for network in networks),
        start_on_host(vm=vm),
    )
    yield announce(vm=vm)


@workflow("vm.create")
def create_vm(*, vm: int) -> Parts:
    """Create a guest that stays stopped."""
    yield created(vm=vm)
    yield announce_stopped(vm=vm)


@step("vm.created")
def created(ctx: StepContext, *, vm: int) -> None:
    """The rows were written together with the job; all that is left is to say that work begins."""
    row = vms.by_id(ctx.tx, vm)
    if row["live"] is None:
        raise ResourceUnavailable(f"virtual machine {row['name']} is gone")
    began(ctx, row, types.VM_CREATE, f"Creating virtual machine {row['name']}")


@created.undo
def never_created(ctx: StepContext, *, vm: int) -> None:
    """Nothing of it is left: addresses, volumes, counts, name and rows go."""
    row = vms.by_id(ctx.tx, vm)
    if row["live"] is None:
        return
    for network_id in nics.release_all(ctx.tx, vm):
        virtual_router.changed(ctx.tx, network_id)
    for disk in volumes.of_vm(ctx.tx, vm):
        transition(ctx.tx, volume_table, disk.id, VOLUME, VolumeState.EXPUNGED, frm=VolumeState.ALLOCATED)
        gone = update(volume_table).where(volume_table.c.id == disk.id)
        ctx.tx.execute(gone.values(live=None, removed_at=ctx.tx.now))
        count.release(ctx.tx, disk.account_id, Resource.VOLUME)
    count.release(ctx.tx, row["account_id"], Resource.INSTANCE)
    if row["state"] != VmState.STOPPED:
        transition(ctx.tx, vm_table, vm, VM, VmState.STOPPED)
    transition(ctx.tx, vm_table, vm, VM, VmState.EXPUNGING, frm=VmState.STOPPED)
    vms.remove(ctx.tx, vm)


@step("vm.announce")
def announce(ctx: StepContext, *, vm: int) -> None:
    """Say that the new guest runs; its password is told here, once."""
    row = vms.by_id(ctx.tx, vm)
    _tell_password(ctx, vm)
    if not transition(ctx.tx, vm_table, vm, VM, VmState.RUNNING, frm=VmState.STARTING):
        if row["state"] == VmState.RUNNING:
            return
        raise ResourceUnavailable(f"virtual machine {row['name']} is {row['state']}")
    happened(ctx.tx, row, types.VM_START, f"Virtual machine {row['name']} started", user_id=ctx.user_id)
    completed(ctx, row, types.VM_CREATE, f"Successfully created virtual machine {row['name']}")


@announce.undo
def retract(ctx: StepContext, *, vm: int) -> None:
    """It runs no more, as far as usage is concerned."""
    if transition(ctx.tx, vm_table, vm, VM, VmState.STOPPING, frm=VmState.RUNNING):
        stopped(ctx.tx, vms.by_id(ctx.tx, vm), "its creation failed", user_id=ctx.user_id)


@step("vm.announce_stopped")
def announce_stopped(ctx: StepContext, *, vm: int) -> None:
    """Say that the new guest is there. Nobody waits for its networks to know it, so they are told."""
    _tell_password(ctx, vm)
    trigger(ctx.tx, virtual_router.RECONCILER)
    row = vms.by_id(ctx.tx, vm)
    completed(ctx, row, types.VM_CREATE, f"Successfully created virtual machine {row['name']}")


@announce_stopped.undo
def retract_stopped(ctx: StepContext, *, vm: int) -> None:
    """What is taken back is taken back by the undo of the creation."""


def _tell_password(ctx: StepContext, vm: int) -> None:
    data = vms.guest_data_of(ctx.tx, vm)
    if data is not None and data["password"]:
        ctx.set_result(password=data["password"])
