"""Closing accounts, users and domains: what has to happen after the database said no to them.

Access ends in the transaction of the call. These jobs stop what still runs, remove what is empty, and announce it.
"""

from sqlalchemy import RowMapping

from pileus.server import events
from pileus.server.db.queries import account as accounts
from pileus.server.db.queries import count
from pileus.server.db.queries import domain as domains
from pileus.server.db.queries import session as sessions
from pileus.server.db.queries import user as users
from pileus.server.db.tables.account import users as users_table
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import AccountState
from pileus.server.domain.errors import ResourceInUse
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


@workflow("account.delete")
def delete_account(*, account: int, was: str) -> Parts:
    """Remove an account that owns nothing."""
    yield shut_account(account=account, was=was)
    yield remove_account(account=account)


@workflow("domain.delete")
def delete_domain(*, domain: int, account: int, cleanup: bool) -> Parts:
    """Remove a domain; with `cleanup`, with all accounts and domains in it that own nothing."""
    yield remove_domain(domain=domain, account=account, cleanup=cleanup)


@workflow("user.disable")
def disable_user(*, account: int) -> Parts:
    """Announce that a user may no longer sign in."""
    yield announce(account=account, type=events.types.USER_DISABLE, text="Successfully disabled user")


@step("account.stop_guests")
def stop_guests(ctx: StepContext, *, account: int) -> None:
    """Stop every guest that runs or is about to; the first that could not be stopped is the job's error."""
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


@stop_guests.undo
def leave_guests(ctx: StepContext, *, account: int) -> None:
    """Guests that were stopped stay stopped: the account may not run any. Only stops under way are waited for."""
    children_settled(ctx)


@step("account.shut")
def shut_account(ctx: StepContext, *, account: int, was: str) -> None:
    """Let nobody in while the account goes."""
    accounts.change(ctx.tx, account, state=str(AccountState.DISABLED), cleanup_required=1)
    sessions.end_of_account(ctx.tx, account)


@shut_account.undo
def reopen_account(ctx: StepContext, *, account: int, was: str) -> None:
    """The account stays, as it was."""
    if accounts.by_id(ctx.tx, account) is not None:
        accounts.change(ctx.tx, account, state=was, cleanup_required=0)


@step("account.remove")
def remove_account(ctx: StepContext, *, account: int) -> None:
    """Remove the account with its users, if it still owns nothing."""
    row = accounts.by_id(ctx.tx, account)
    if row is not None:
        take_away(ctx.tx, row)
        completed(ctx, row, events.types.ACCOUNT_DELETE, "Successfully deleted account")


@step("domain.remove")
def remove_domain(ctx: StepContext, *, domain: int, account: int, cleanup: bool) -> None:
    """Remove the domain, innermost first, if everything in it is empty. `account` is whose event it is."""
    top = domains.by_id(ctx.tx, domain)
    if top is None:
        return
    tree = domains.subtree(ctx.tx, top["path"])
    held = accounts.of_domains(ctx.tx, [row["id"] for row in tree])
    if not cleanup and (held or len(tree) > 1):
        raise ResourceInUse(f"domain {top['path']} still has {len(held)} accounts and {len(tree) - 1} domains below it")
    for row in held:
        take_away(ctx.tx, row)
    for row in reversed(tree):
        domains.remove(ctx.tx, row["id"])
        count.drop(ctx.tx, count.DOMAIN, row["id"])
    whose = accounts.any_by_id(ctx.tx, account)
    if whose is not None:
        completed(ctx, whose, events.types.DOMAIN_DELETE, f"Successfully deleted domain {top['path']}")


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


def take_away(tx: Tx, row: RowMapping) -> None:
    """Remove an account and its users; 536 with what it still owns."""
    owned = accounts.belongings(tx, row["id"])
    if owned:
        told = ", ".join(f"{n} {noun}" for noun, n in owned.items())
        raise ResourceInUse(f"account {row['name']} still owns {told}: delete them first")
    sessions.end_of_account(tx, row["id"])
    users.remove(tx, users_table.c.account_id == row["id"])
    accounts.remove(tx, row["id"])
    count.drop(tx, count.ACCOUNT, row["id"])
