"""Deleting a domain, and with `cleanup` everything in it: accounts, domains below it, what was given to it.

With `cleanup` there is no way back: the domains are Inactive from the call on, and stay visible until nothing is left
of them. A job that fails leaves what it could not take away; `account-cleanup` begins another.
"""

from collections.abc import Collection

from sqlalchemy import RowMapping

from pileus.server import events
from pileus.server.db.queries import account as accounts
from pileus.server.db.queries import count
from pileus.server.db.queries import domain as domains
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import offering as offerings
from pileus.server.db.queries import zone as zones
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT
from pileus.server.domain.caller import Owner
from pileus.server.domain.errors import ResourceInUse
from pileus.server.jobs.children import child
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, Plan, step, workflow
from pileus.server.jobs.submit import JobRef
from pileus.server.workflows import account_delete
from pileus.server.workflows.account_close import completed
from pileus.server.workflows.account_delete import delete_account
from pileus.server.workflows.drain import CHILD_SECONDS, drain
from pileus.server.workflows.network_delete import network_delete


@workflow("domain.delete")
def delete_domain(*, domain: int, account: int, cleanup: bool) -> Parts:
    """Remove a domain; with `cleanup`, with everything in it. `account` is whose event it is."""
    if cleanup:
        yield shut_domain(domain=domain)
        yield clear_accounts(domain=domain)
        yield clear_shared(domain=domain)
    yield remove_domain(domain=domain, account=account, cleanup=cleanup)


def shut(tx: Tx, domain_id: int) -> None:
    """Let nobody of the domain and those below it in from this transaction on, for good."""
    tree = _tree(tx, domain_id)
    for row in tree:
        domains.change(tx, row["id"], state=domains.INACTIVE)
    for row in accounts.of_domains(tx, _keys(tree)):
        account_delete.shut(tx, row["id"])


def refuse_used(tx: Tx, tree: Collection[RowMapping], *, cleanup: bool) -> None:
    """536 with what is in the domains; with `cleanup` only with what a clean-up does not take away: zones."""
    keys = _keys(tree)
    top = next(iter(tree))
    found = {"zones": len(zones.of_domains(tx, keys))}
    if not cleanup:
        found |= {
            "accounts": domains.accounts_in(tx, keys),
            "domains below it": len(tree) - 1,
            "shared networks": len(networks.shared_in(tx, keys)),
        }
    held = ", ".join(f"{n} {noun}" for noun, n in found.items() if n)
    if held:
        raise ResourceInUse(f"domain {top['path']} still has {held}")


@step("domain.shut")
def shut_domain(ctx: StepContext, *, domain: int) -> None:
    """See `shut`: usually done in the transaction of the call."""
    shut(ctx.tx, domain)


@shut_domain.undo
def stays_shut(ctx: StepContext, *, domain: int) -> None:
    """What was in it may be gone in part: nobody comes back to the rest."""


@step("domain.clear_accounts")
def clear_accounts(ctx: StepContext, *, domain: int) -> None:
    """Delete every account with everything it owns."""
    held = {int(row["id"]): row for row in accounts.of_domains(ctx.tx, _keys(_tree(ctx.tx, domain)))}

    def begin(account: int) -> JobRef:
        owner = Owner(account, held[account]["domain_id"], ctx.user_id)
        return _child(ctx, delete_account(account=account), "deleteAccount", "account", account, owner)

    drain(ctx, sorted(held), begin)


@clear_accounts.undo
def accounts_stay_cleared(ctx: StepContext, *, domain: int) -> None:
    """What is gone is gone."""


@step("domain.clear_shared")
def clear_shared(ctx: StepContext, *, domain: int) -> None:
    """Delete the networks that were given to the domain: nobody else may use them."""
    owner = Owner(SYSTEM_ACCOUNT, ROOT_DOMAIN, ctx.user_id)
    left = networks.shared_in(ctx.tx, _keys(_tree(ctx.tx, domain)))
    drain(
        ctx,
        left,
        lambda network: _child(ctx, network_delete(network=network), "deleteNetwork", "network", network, owner),
    )


@clear_shared.undo
def shared_stay_cleared(ctx: StepContext, *, domain: int) -> None:
    """What is gone is gone."""


@step("domain.remove")
def remove_domain(ctx: StepContext, *, domain: int, account: int, cleanup: bool) -> None:
    """Remove the domain, innermost first, if nothing is in it any more. `account` is whose event it is."""
    tree = _tree(ctx.tx, domain)
    if not tree:
        return
    path = tree[0]["path"]
    refuse_used(ctx.tx, tree, cleanup=cleanup)
    left = len(networks.shared_in(ctx.tx, _keys(tree))) + domains.accounts_in(ctx.tx, _keys(tree))
    if left:
        raise ResourceInUse(f"domain {path} still has accounts or networks")
    offerings.withdraw(ctx.tx, _keys(tree))
    for row in reversed(tree):
        domains.remove(ctx.tx, row["id"])
        count.drop(ctx.tx, count.DOMAIN, row["id"])
    whose = accounts.any_by_id(ctx.tx, account)
    if whose is not None:
        completed(ctx, whose, events.types.DOMAIN_DELETE, f"Successfully deleted domain {path}")


@remove_domain.undo
def stays_removed(ctx: StepContext, *, domain: int, account: int, cleanup: bool) -> None:
    """The last step: it either was done with its commit, or left nothing."""


_KINDS = {"account": "Account", "network": "Network"}


def _child(ctx: StepContext, plan: Plan, command: str, noun: str, key: int, owner: Owner) -> JobRef:
    return child(
        ctx,
        plan,
        command=command,
        label=f"{noun}:{key}",
        resource_key=f"{noun}:{key}",
        instance_kind=_KINDS[noun],
        instance_id=key,
        owner=owner,
        deadline_seconds=CHILD_SECONDS if noun != "account" else None,
    )


def _tree(tx: Tx, domain_id: int) -> list[RowMapping]:
    """The live domain and those below it, nearest to ROOT first; nothing once it is removed."""
    top = domains.by_id(tx, domain_id)
    return [] if top is None else domains.subtree(tx, top["path"])


def _keys(tree: Collection[RowMapping]) -> list[int]:
    return [int(row["id"]) for row in tree]
