"""A new password for a stopped guest, told once in the job's result and served by its router."""

import secrets
import string

from pileus.server.db.queries import vm as vms
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.vm import VmState
from pileus.server.elements import virtual_router
from pileus.server.events import types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.vm_record import began, completed

LENGTH = 12
_LETTERS = "".join(c for c in string.ascii_letters + string.digits if c not in "0O1lI")


def new_password() -> str:
    """A random password that can be read aloud: no characters that look alike; about 69 bits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(LENGTH))


@workflow("vm.reset_password")
def reset_password(*, vm: int) -> Parts:
    """Give a stopped guest a new password."""
    yield password_reset(vm=vm)


@step("vm.password_reset")
def password_reset(ctx: StepContext, *, vm: int) -> None:
    """Choose it, have the router serve it, tell it."""
    row = vms.by_id(ctx.tx, vm)
    if row["state"] != VmState.STOPPED:
        raise ParameterError(f"virtual machine {row['name']} is {row['state']}: stop it first", parameter="id")
    known = vms.guest_data_of(ctx.tx, vm)
    if known is not None and known["password_id"] == ctx.job_uuid:
        ctx.set_result(password=known["password"])
        return
    began(ctx, row, types.VM_RESETPASSWORD, f"Resetting the password of virtual machine {row['name']}")
    password = new_password()
    vms.set_guest_data(ctx.tx, vm, password=password, password_id=ctx.job_uuid)
    virtual_router.vm_changed(ctx.tx, vm)
    ctx.set_result(password=password)
    completed(ctx, row, types.VM_RESETPASSWORD, f"Successfully reset the password of virtual machine {row['name']}")


@password_reset.undo
def password_not_reset(ctx: StepContext, *, vm: int) -> None:
    """Nobody was told it, so nobody may get it."""
    known = vms.guest_data_of(ctx.tx, vm)
    if known is not None and known["password_id"] == ctx.job_uuid:
        vms.set_guest_data(ctx.tx, vm, password=None, password_id=None)
        virtual_router.vm_changed(ctx.tx, vm)
