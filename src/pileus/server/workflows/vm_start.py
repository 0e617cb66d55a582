"""Starting a stopped guest: a new life, on its last host if that has room."""

from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ParameterError, ResourceUnavailable
from pileus.server.domain.vm import VM, VmState
from pileus.server.events import types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, try_elsewhere, workflow
from pileus.server.workflows.network_ready import network_ready
from pileus.server.workflows.vm_life import place, start_on_host
from pileus.server.workflows.vm_record import began, completed, stopped
from pileus.server.workflows.volumes import volumes_ready


@workflow("vm.start")
def start_vm(*, vm: int, networks: list[int], host: int | None, any_allocation_state: bool) -> Parts:
    """Start a stopped guest."""
    yield starting(vm=vm)
    yield try_elsewhere(
        place(vm=vm, host=host, any_allocation_state=any_allocation_state),
        # Meanwhile the routers are told of it, so that there is little to wait for afterwards.
        volumes_ready(vm=vm),
        *(network_ready(network=network, vm=vm) for network in networks),
        start_on_host(vm=vm),
    )
    yield started(vm=vm)


@step("vm.starting")
def starting(ctx: StepContext, *, vm: int) -> None:
    """Stopped → Starting."""
    row = vms.by_id(ctx.tx, vm)
    moved = transition(ctx.tx, vm_table, vm, VM, VmState.STARTING, frm=VmState.STOPPED)
    if not moved and row["state"] != VmState.STARTING:
        raise ParameterError(f"virtual machine {row['name']} is {row['state']}, not Stopped", parameter="id")
    began(ctx, row, types.VM_START, f"Starting virtual machine {row['name']}")


@starting.undo
def not_starting(ctx: StepContext, *, vm: int) -> None:
    """It is stopped again; one that ran before this job began is left alone."""
    if vms.by_id(ctx.tx, vm)["state"] in (VmState.STARTING, VmState.STOPPING):
        transition(ctx.tx, vm_table, vm, VM, VmState.STOPPED)


@step("vm.started")
def started(ctx: StepContext, *, vm: int) -> None:
    """Starting → Running."""
    row = vms.by_id(ctx.tx, vm)
    if not transition(ctx.tx, vm_table, vm, VM, VmState.RUNNING, frm=VmState.STARTING):
        if row["state"] == VmState.RUNNING:
            return
        raise ResourceUnavailable(f"virtual machine {row['name']} is {row['state']}")
    completed(ctx, row, types.VM_START, f"Successfully started virtual machine {row['name']}")


@started.undo
def not_started(ctx: StepContext, *, vm: int) -> None:
    """Running → Stopping: what follows takes it off its host."""
    if transition(ctx.tx, vm_table, vm, VM, VmState.STOPPING, frm=VmState.RUNNING):
        stopped(ctx.tx, vms.by_id(ctx.tx, vm), "its start failed", user_id=ctx.user_id)
