"""Disabling accounts and users: access ends in the transaction of the call; these jobs stop what still runs.

An account whose guests could not be stopped keeps `cleanup_required`: the reconciler `account-cleanup` tries again.
"""

from sqlalchemy import RowMapping

from pileus.server import events
from pileus.server.db.queries import account as accounts
from pileus.server.domain.account import AccountState
from pileus.server.domain.vm import VmState
from pileus.server.jobs.children import child, children_settled, result_of
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.vm_stop import stop_vm


@workflow("account.disable")
def disable_account(*, account: int, stop: bool) -> Parts:
    """Stop the guests of an account that may no longer sign in, unless it was only locked."""
    if stop:
        yield stop_guests(account=account)
    yield announce(account=account, type=events.types.ACCOUNT_DISABLE, text="Successfully disabled account")


@workflow("user.disable")
def disable_user(*, account: int) -> Parts:
    """Announce that a user may no longer sign in."""
    yield announce(account=account, type=events.types.USER_DISABLE, text="Successfully disabled user")


@step("account.stop_guests")
def stop_guests(ctx: StepContext, *, account: int) -> None:
    """Stop every guest that runs or is about to; the first that could not be stopped is the job's error."""
    row = accounts.by_id(ctx.tx, account)
    if row is None or row["state"] != AccountState.DISABLED:
        return
    states = [str(VmState.RUNNING), str(VmState.STARTING)]
    jobs = [
        child(
            ctx,
            stop_vm(vm=vm, forced=False),
            command="stopVirtualMachine",
            label=f"vm:{vm}",
            resource_key=f"vm:{vm}",
            instance_kind="VirtualMachine",
            instance_id=vm,
        )
        for vm in accounts.guests(ctx.tx, account, states)
    ]
    children_settled(ctx)
    for job in jobs:
        result_of(ctx, job.id)
    accounts.change(ctx.tx, account, cleanup_required=0)


@stop_guests.undo
def leave_guests(ctx: StepContext, *, account: int) -> None:
    """Guests that were stopped stay stopped: the account may not run any. Only stops under way are waited for."""
    children_settled(ctx)


@step("account.announce")
def announce(ctx: StepContext, *, account: int, type: str, text: str) -> None:
    """The COMPLETED event of a job that had nothing else left to do."""
    row = accounts.any_by_id(ctx.tx, account)
    if row is not None:
        completed(ctx, row, type, text)


def completed(ctx: StepContext, row: RowMapping, type: str, text: str) -> None:
    """Write the COMPLETED event, on the account of `row`."""
    events.record(
        ctx.tx,
        type=type,
        description=text,
        account_id=row["id"],
        domain_id=row["domain_id"],
        user_id=ctx.user_id,
        start_id=ctx.start_event_id,
    )
