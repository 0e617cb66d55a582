"""What takes one thing away from an owner that goes, in whatever state it is: a guest, a volume.

Each begins by looking: what waits behind another job of the thing may find it changed, or gone.
"""

from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.db.transition import transition
from pileus.server.domain.vm import VM, VmState
from pileus.server.events import types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.vm_destroy import destroyed, expunged, expunging
from pileus.server.workflows.vm_record import began
from pileus.server.workflows.vm_stop import settle, stop_on_host
from pileus.server.workflows.volumes import volume_gone, volumes_gone


@workflow("vm.clear")
def clear_vm(*, vm: int) -> Parts:
    """Destroy and expunge a guest, however far it has come with that."""
    yield clearing(vm=vm)
    yield stop_on_host(vm=vm, forced=True)
    yield destroyed(vm=vm)
    yield expunging(vm=vm)
    yield volumes_gone(vm=vm)
    yield expunged(vm=vm)


@workflow("volume.clear")
def clear_volume(*, volume: int) -> Parts:
    """Delete a volume that hangs on no guest."""
    yield volume_gone(volume=volume)


@step("vm.clearing")
def clearing(ctx: StepContext, *, vm: int) -> None:
    """A running guest is Stopping from now on; one that is destroyed already stays so."""
    row = vms.by_id(ctx.tx, vm)
    if row["live"] is None or row["state"] in (VmState.DESTROYED, VmState.EXPUNGING):
        return
    began(ctx, row, types.VM_DESTROY, f"Destroying virtual machine {row['name']}")
    transition(ctx.tx, vm_table, vm, VM, VmState.STOPPING, frm=VmState.RUNNING)
    transition(ctx.tx, vm_table, vm, VM, VmState.STOPPED, frm=VmState.UNKNOWN)


@clearing.undo
def not_clearing(ctx: StepContext, *, vm: int) -> None:
    """As with a stop that did not come to its end; the owner's next clean-up tries again."""
    settle(ctx, vm)
