"""Destroying a guest, and expunging what is left of it when the delay is over."""

from pileus.server.db.queries import count
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.db.transition import transition
from pileus.server.domain.account import Resource
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.vm import VM, VmState
from pileus.server.elements import virtual_router
from pileus.server.events import types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.vm_record import began, completed, happened, stopped
from pileus.server.workflows.vm_stop import settle, stop_on_host
from pileus.server.workflows.volumes import volumes_gone


@workflow("vm.destroy")
def destroy_vm(*, vm: int, expunge: bool) -> Parts:
    """Stop a guest abruptly and destroy it; with `expunge`, delete its root disk too."""
    yield destroying(vm=vm)
    yield stop_on_host(vm=vm, forced=True)
    yield destroyed(vm=vm)
    if expunge:
        yield expunging(vm=vm)
        yield volumes_gone(vm=vm)
        yield expunged(vm=vm)
    yield announce_destroyed(vm=vm)


@workflow("vm.expunge")
def expunge_vm(*, vm: int) -> Parts:
    """Delete the root disk of a destroyed guest, and forget the guest."""
    yield expunging(vm=vm)
    yield volumes_gone(vm=vm)
    yield expunged(vm=vm)


@step("vm.destroying")
def destroying(ctx: StepContext, *, vm: int) -> None:
    """Running → Stopping; a stopped one stays as it is."""
    row = vms.by_id(ctx.tx, vm)
    if row["state"] not in (VmState.RUNNING, VmState.STOPPED, VmState.STOPPING, VmState.ERROR):
        raise ParameterError(f"virtual machine {row['name']} is {row['state']}", parameter="id")
    began(ctx, row, types.VM_DESTROY, f"Destroying virtual machine {row['name']}")
    transition(ctx.tx, vm_table, vm, VM, VmState.STOPPING, frm=VmState.RUNNING)


@destroying.undo
def not_destroying(ctx: StepContext, *, vm: int) -> None:
    """As with a stop that did not come to its end."""
    settle(ctx, vm)


@step("vm.destroyed")
def destroyed(ctx: StepContext, *, vm: int) -> None:
    """→ Destroyed: its addresses, its name and its count are free again."""
    row = vms.by_id(ctx.tx, vm)
    if transition(ctx.tx, vm_table, vm, VM, VmState.STOPPED, frm=VmState.STOPPING):
        stopped(ctx.tx, row, "it was destroyed", user_id=ctx.user_id)
    if not transition(ctx.tx, vm_table, vm, VM, VmState.DESTROYED, destroyed_at=ctx.tx.now, name_key=None):
        return
    for network_id in nics.release_all(ctx.tx, vm):
        virtual_router.changed(ctx.tx, network_id)
    count.release(ctx.tx, row["account_id"], Resource.INSTANCE)
    if ctx.start_event_id is None:  # Part of something larger: nobody else tells of it.
        happened(ctx.tx, row, types.VM_DESTROY, f"Destroyed virtual machine {row['name']}", user_id=ctx.user_id)


@destroyed.undo
def stays_destroyed(ctx: StepContext, *, vm: int) -> None:
    """Its addresses may be another's by now: what is destroyed stays destroyed."""


@step("vm.expunging")
def expunging(ctx: StepContext, *, vm: int) -> None:
    """Destroyed → Expunging."""
    row = vms.by_id(ctx.tx, vm)
    if row["live"] is None or row["state"] == VmState.EXPUNGING:
        return
    if not transition(ctx.tx, vm_table, vm, VM, VmState.EXPUNGING, frm=VmState.DESTROYED):
        raise ParameterError(f"virtual machine {row['name']} is {row['state']}, not Destroyed", parameter="id")


@expunging.undo
def stays_expunging(ctx: StepContext, *, vm: int) -> None:
    """Its disk may be gone: the reconciler `vm-expunge` tries again."""


@step("vm.expunged")
def expunged(ctx: StepContext, *, vm: int) -> None:
    """Nothing of it is left but its row, out of use."""
    row = vms.by_id(ctx.tx, vm)
    if row["live"] is None:
        return
    vms.remove(ctx.tx, vm)
    happened(ctx.tx, row, types.VM_EXPUNGE, f"Expunged virtual machine {row['name']}", user_id=ctx.user_id)


@expunged.undo
def stays_expunged(ctx: StepContext, *, vm: int) -> None:
    """What is gone is gone."""


@step("vm.announce_destroyed")
def announce_destroyed(ctx: StepContext, *, vm: int) -> None:
    """Say so, once all that was asked for is done."""
    row = vms.by_id(ctx.tx, vm)
    if ctx.start_event_id is not None:
        completed(ctx, row, types.VM_DESTROY, f"Successfully destroyed virtual machine {row['name']}")
