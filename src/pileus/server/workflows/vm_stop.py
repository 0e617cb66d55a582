"""Stopping a guest: gracefully, then by force; and rebooting it."""

from pileus.server.db.queries import incarnation
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.vm import VM, LifeState, VmState
from pileus.server.events import types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.vm_life import end_life
from pileus.server.workflows.vm_record import began, completed, stopped


@workflow("vm.stop")
def stop_vm(*, vm: int, forced: bool) -> Parts:
    """Stop a running guest."""
    yield stopping(vm=vm)
    yield stop_on_host(vm=vm, forced=forced)
    yield stopped_for_good(vm=vm)


@step("vm.stopping")
def stopping(ctx: StepContext, *, vm: int) -> None:
    """Running → Stopping."""
    row = vms.by_id(ctx.tx, vm)
    moved = transition(ctx.tx, vm_table, vm, VM, VmState.STOPPING, frm=VmState.RUNNING)
    if not moved and row["state"] not in (VmState.STOPPING, VmState.STOPPED):
        raise ParameterError(f"virtual machine {row['name']} is {row['state']}, not Running", parameter="id")
    began(ctx, row, types.VM_STOP, f"Stopping virtual machine {row['name']}")


@stopping.undo
def not_stopping(ctx: StepContext, *, vm: int) -> None:
    """It runs on when its host was never asked; otherwise it is stopped."""
    settle(ctx, vm)


@step("vm.stop_on_host")
def stop_on_host(ctx: StepContext, *, vm: int, forced: bool) -> None:
    """End the current life, if there is one."""
    life = incarnation.current(ctx.tx, vm)
    if life is not None:
        end_life(ctx, vms.by_id(ctx.tx, vm), life, forced=forced)


@stop_on_host.undo
def stays_stopped(ctx: StepContext, *, vm: int, forced: bool) -> None:
    """A stop cannot be taken back: a life whose host was asked is brought to its end, by force."""
    life = incarnation.current(ctx.tx, vm)
    if life is not None and life.state is LifeState.ENDING:
        end_life(ctx, vms.by_id(ctx.tx, vm), life)


@step("vm.stopped")
def stopped_for_good(ctx: StepContext, *, vm: int) -> None:
    """Stopping → Stopped."""
    row = vms.by_id(ctx.tx, vm)
    if transition(ctx.tx, vm_table, vm, VM, VmState.STOPPED, frm=VmState.STOPPING):
        completed(ctx, row, types.VM_STOP, f"Successfully stopped virtual machine {row['name']}")


def settle(ctx: StepContext, vm: int) -> None:
    """After a stop that did not come to its end: Running while its life is, else Stopped."""
    row = vms.by_id(ctx.tx, vm)
    if row["state"] != VmState.STOPPING:
        return
    life = incarnation.current(ctx.tx, vm)
    if life is not None and life.state is LifeState.LIVE:
        transition(ctx.tx, vm_table, vm, VM, VmState.RUNNING, frm=VmState.STOPPING)
        return
    transition(ctx.tx, vm_table, vm, VM, VmState.STOPPED, frm=VmState.STOPPING)
    stopped(ctx.tx, row, "its job did not end", user_id=ctx.user_id)
