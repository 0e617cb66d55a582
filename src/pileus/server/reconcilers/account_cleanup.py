"""Accounts and domains that are being deleted, and disabled accounts whose guests ran on, are brought to their end.

The job of the call does it at first. When it failed, another one begins `account.cleanup.interval` after it ended.
"""

from functools import partial

from sqlalchemy import or_, select

from pileus.server.config import keys, value
from pileus.server.db.queries import account as accounts
from pileus.server.db.queries import domain as domains
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT, SYSTEM_USER, AccountState
from pileus.server.domain.caller import Owner
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.reconciler import reconciler
from pileus.server.jobs.submit import submit
from pileus.server.workflows.account_close import disable_account
from pileus.server.workflows.account_delete import delete_account
from pileus.server.workflows.domain_delete import delete_domain
from pileus.server.workflows.drain import CLEAN_UP_SECONDS

SYSTEM = Owner(SYSTEM_ACCOUNT, ROOT_DOMAIN, SYSTEM_USER)


@reconciler("account-cleanup", period_seconds=60.0)
def clean_up(db: Database) -> None:
    """Begin the jobs that are due."""
    for kind, key in db.run(_due):
        db.run(partial(_begin, kind=kind, key=key))


def _due(tx: Tx) -> list[tuple[str, int]]:
    # A domain's job deletes its accounts too: what is left of them is looked for there first.
    found = [("domain", int(row["id"])) for row in domains.going(tx)]
    for state in (AccountState.REMOVED, AccountState.DISABLED):
        found += [("account", int(row["id"])) for row in accounts.unfinished(tx, state)]
    return [(kind, key) for kind, key in found if _is_due(tx, f"{kind}:{key}")]


def _is_due(tx: Tx, resource_key: str) -> bool:
    """Whether no job is at it, nor was within the interval."""
    since = tx.now - 1000 * value(tx, keys.account_cleanup_interval)
    recent = or_(job.c.open == 1, job.c.completed_at > since)
    return tx.scalar(select(job.c.id).where(job.c.resource_key == resource_key, recent).limit(1)) is None


def _begin(tx: Tx, *, kind: str, key: int) -> None:
    """Look again, for it may be over by now, and submit the job."""
    plan: Plan
    if kind == "domain":
        if domains.by_id(tx, key) is None:
            return
        plan = delete_domain(domain=key, account=SYSTEM_ACCOUNT, cleanup=True)
        _submit(tx, plan, "deleteDomain", "Domain", kind, key)
        return
    row = accounts.by_id(tx, key)
    if row is None or not row["cleanup_required"]:
        return
    if row["state"] == AccountState.REMOVED:
        _submit(tx, delete_account(account=key), "deleteAccount", "Account", kind, key)
    else:
        _submit(tx, disable_account(account=key, stop=True), "disableAccount", "Account", kind, key)


def _submit(tx: Tx, plan: Plan, command: str, noun: str, kind: str, key: int) -> None:
    submit(
        tx,
        plan,
        SYSTEM,
        command=command,
        instance_kind=noun,
        instance_id=key,
        resource_key=f"{kind}:{key}",
        deadline_seconds=CLEAN_UP_SECONDS,
    )
