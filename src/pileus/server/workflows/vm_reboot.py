"""Rebooting a guest: a stop followed by a start, on the same host and in the same life."""

from pileus.server.db.queries import incarnation
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ParameterError, ResourceUnavailable
from pileus.server.domain.vm import VM, LifeState, VmState
from pileus.server.events import types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.ask import HostRefused, HostSilent, ask, make_sure
from pileus.server.workflows.vm_life import START_SECONDS, end_life
from pileus.server.workflows.vm_record import began, completed, stopped
from pileus.server.workflows.vm_spec import GRACE_SECONDS, queue_of, spec
from pileus.wire.operations import RebootVm, StartVm


@workflow("vm.reboot")
def reboot_vm(*, vm: int) -> Parts:
    """Reboot a running guest."""
    yield reboot_on_host(vm=vm)
    yield rebooted(vm=vm)


@step("vm.reboot_on_host")
def reboot_on_host(ctx: StepContext, *, vm: int) -> None:
    """Have its host stop and start it."""
    row = vms.by_id(ctx.tx, vm)
    life = incarnation.current(ctx.tx, vm)
    if row["state"] != VmState.RUNNING or life is None or life.state is not LifeState.LIVE:
        raise ParameterError(f"virtual machine {row['name']} is {row['state']}, not Running", parameter="id")
    began(ctx, row, types.VM_REBOOT, f"Rebooting virtual machine {row['name']}")
    order = RebootVm(spec(ctx.tx, row, life), grace_seconds=GRACE_SECONDS)
    try:
        ask(ctx, life.host_id, order, queue=queue_of(row), deadline_seconds=START_SECONDS + GRACE_SECONDS)
    except HostSilent as silent:
        raise ResourceUnavailable("the host did not answer") from silent
    except HostRefused as refused:
        raise ResourceUnavailable(f"the host could not reboot it: {refused.refusal.text}") from refused


@reboot_on_host.undo
def runs_or_not(ctx: StepContext, *, vm: int) -> None:
    """A reboot that failed may have left it off: start it in the same life, and where even that fails, end the life."""
    row = vms.by_id(ctx.tx, vm)
    life = incarnation.current(ctx.tx, vm)
    if row["state"] != VmState.RUNNING or life is None:
        return
    if life.state is LifeState.LIVE:
        try:
            make_sure(ctx, life.host_id, StartVm(spec(ctx.tx, row, life)), queue=queue_of(row), label="again")
            return  # Or the host is Down: it is compared with what it holds when it is back.
        except HostRefused:
            incarnation.ending(ctx.tx, life)
    end_life(ctx, row, life, label="end")
    transition(ctx.tx, vm_table, vm, VM, VmState.STOPPED, frm=VmState.RUNNING)
    stopped(ctx.tx, row, "it could not be started again after a reboot", user_id=ctx.user_id)


@step("vm.rebooted")
def rebooted(ctx: StepContext, *, vm: int) -> None:
    """Say so."""
    row = vms.by_id(ctx.tx, vm)
    completed(ctx, row, types.VM_REBOOT, f"Successfully rebooted virtual machine {row['name']}")
