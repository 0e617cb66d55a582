"""Deleting an account with everything it owns: guests, then volumes, networks and templates, then its own rows.

There is no way back: the account is `removed` from the call on, and stays visible with `cleanup_required` until
nothing is left of it. A job that fails leaves what it could not take away; `account-cleanup` begins another.
"""

from sqlalchemy import RowMapping

from pileus.server import events
from pileus.server.db.queries import account as accounts
from pileus.server.db.queries import count
from pileus.server.db.queries import instance_group as groups
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import rule as rules
from pileus.server.db.queries import session as sessions
from pileus.server.db.queries import ssh_key as ssh_keys
from pileus.server.db.queries import user as users
from pileus.server.db.queries import vlan_ip_range as ranges
from pileus.server.db.queries import volume as volumes
from pileus.server.db.tables.account import account as account_table
from pileus.server.db.tables.account import users as users_table
from pileus.server.db.tables.ssh_key import ssh_key_pair
from pileus.server.db.tables.vm import instance_group
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.account import ACCOUNT, AccountState
from pileus.server.domain.caller import Owner
from pileus.server.domain.errors import ResourceInUse
from pileus.server.jobs.children import child
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, Plan, step, workflow
from pileus.server.jobs.submit import JobRef
from pileus.server.workflows.account_close import completed
from pileus.server.workflows.belongings import clear_vm, clear_volume
from pileus.server.workflows.drain import CHILD_SECONDS, drain
from pileus.server.workflows.network_delete import network_delete
from pileus.server.workflows.template_delete import delete_template


@workflow("account.delete")
def delete_account(*, account: int) -> Parts:
    """Remove an account with everything it owns."""
    yield shut_account(account=account)
    yield clear_guests(account=account)
    yield clear_volumes(account=account)
    yield clear_networks(account=account)
    yield clear_templates(account=account)
    yield remove_account(account=account)


def shut(tx: Tx, account_id: int) -> None:
    """Let nobody of the account in from this transaction on, by login or key, for good."""
    transition(tx, account_table, account_id, ACCOUNT, AccountState.REMOVED)
    accounts.change(tx, account_id, cleanup_required=1)
    sessions.end_of_account(tx, account_id)
    users.drop_keys(tx, users_table.c.account_id == account_id)


@step("account.shut")
def shut_account(ctx: StepContext, *, account: int) -> None:
    """See `shut`: usually done in the transaction of the call."""
    if accounts.by_id(ctx.tx, account) is not None:
        shut(ctx.tx, account)


@shut_account.undo
def stays_shut(ctx: StepContext, *, account: int) -> None:
    """What it owned may be gone in part: nobody comes back to the rest."""


@step("account.clear_guests")
def clear_guests(ctx: StepContext, *, account: int) -> None:
    """Destroy and expunge every guest."""
    drain(ctx, accounts.guests(ctx.tx, account), lambda vm: _take(ctx, account, clear_vm(vm=vm), "vm", vm))


@clear_guests.undo
def guests_stay_cleared(ctx: StepContext, *, account: int) -> None:
    """What is gone is gone."""


@step("account.clear_volumes")
def clear_volumes(ctx: StepContext, *, account: int) -> None:
    """Delete the data disks, which no guest has any more."""
    left = volumes.of_account(ctx.tx, account)
    drain(ctx, left, lambda volume: _take(ctx, account, clear_volume(volume=volume), "volume", volume))


@clear_volumes.undo
def volumes_stay_cleared(ctx: StepContext, *, account: int) -> None:
    """What is gone is gone."""


@step("account.clear_networks")
def clear_networks(ctx: StepContext, *, account: int) -> None:
    """Delete the networks with their routers, addresses and rules."""
    left = networks.of_account(ctx.tx, account)
    drain(ctx, left, lambda network: _take(ctx, account, network_delete(network=network), "network", network))


@clear_networks.undo
def networks_stay_cleared(ctx: StepContext, *, account: int) -> None:
    """What is gone is gone."""


@step("account.clear_templates")
def clear_templates(ctx: StepContext, *, account: int) -> None:
    """Delete the templates with their copies, everywhere."""
    left = accounts.templates(ctx.tx, account)
    drain(
        ctx,
        left,
        lambda template: _take(ctx, account, delete_template(template=template, zone=None), "template", template),
    )


@clear_templates.undo
def templates_stay_cleared(ctx: StepContext, *, account: int) -> None:
    """What is gone is gone."""


@step("account.remove")
def remove_account(ctx: StepContext, *, account: int) -> None:
    """Remove the account with its users, if it owns nothing any more."""
    row = accounts.by_id(ctx.tx, account)
    if row is not None:
        _take_away(ctx.tx, row)
        completed(ctx, row, events.types.ACCOUNT_DELETE, "Successfully deleted account")


@remove_account.undo
def stays_removed(ctx: StepContext, *, account: int) -> None:
    """The last step: it either was done with its commit, or left nothing."""


_KINDS = {"vm": "VirtualMachine", "volume": "Volume", "network": "Network", "template": "Template"}
_COMMANDS = {
    "vm": "destroyVirtualMachine",
    "volume": "deleteVolume",
    "network": "deleteNetwork",
    "template": "deleteTemplate",
}


def _take(ctx: StepContext, account: int, plan: Plan, noun: str, key: int) -> JobRef:
    """The child that takes one thing away, on behalf of the account that owns it."""
    row = accounts.any_by_id(ctx.tx, account)
    if row is None:
        raise LookupError(f"account {account}")
    return child(
        ctx,
        plan,
        command=_COMMANDS[noun],
        label=f"{noun}:{key}",
        resource_key=f"{noun}:{key}",
        instance_kind=_KINDS[noun],
        instance_id=key,
        owner=Owner(account, row["domain_id"], ctx.user_id),
        deadline_seconds=CHILD_SECONDS,
    )


def _take_away(tx: Tx, row: RowMapping) -> None:
    """Remove an account, its users and the rows that say what it may; 536 with what it still owns."""
    owned = accounts.belongings(tx, row["id"])
    if owned:
        told = ", ".join(f"{n} {noun}" for noun, n in owned.items())
        raise ResourceInUse(f"account {row['name']} still owns {told}")
    ranges.undedicate(tx, row["id"])
    accounts.drop_rights(tx, row["id"])
    groups.remove(tx, instance_group.c.account_id == row["id"])
    ssh_keys.remove(tx, ssh_key_pair.c.account_id == row["id"])
    rules.forget_vpn_users(tx, row["id"])
    sessions.end_of_account(tx, row["id"])
    users.remove(tx, users_table.c.account_id == row["id"])
    accounts.remove(tx, row["id"])
    count.drop(tx, count.ACCOUNT, row["id"])
