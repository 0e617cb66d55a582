"""VPN users of an account: their own names and passwords, of nobody's but the VPN. Guide: "VPN"."""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, func, insert, select

from pileus.server.auth.visibility import owner as owner_of
from pileus.server.auth.visibility import scope
from pileus.server.config import keys, value
from pileus.server.db.queries import network as networks
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.vpn import remote_access_vpn, vpn_user
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import LimitExceeded, ParameterError, ResourceInUse
from pileus.server.domain.network import RULE, RuleState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import submit
from pileus.server.services.paging import bounds
from pileus.server.services.rule import DEADLINE_SECONDS
from pileus.server.workflows.vpn_user import KIND, vpn_user_add, vpn_user_remove

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9@._-]{2,63}")
_PASSWORD = re.compile(r"[A-Za-z0-9@#+=._-]{3,32}")


def add(
    tx: Tx, caller: Caller, *, username: str, password: str, account_name: str | None, domain_id: int | None
) -> tuple[str, str]:
    """Let somebody in by the account's VPNs. Returns job and user (UUIDs).

    Errors: a name or password that cannot be, a used name (431), the limit of users (535).
    """
    if not _NAME.fullmatch(username):
        text = "username begins with a letter and has 3 to 64 characters: letters, digits and @ . - _"
        raise ParameterError(text, parameter="username")
    if not _PASSWORD.fullmatch(password):
        text = "password has 3 to 32 characters: letters, digits and @ # . - _ = +"
        raise ParameterError(text, parameter="password")
    owner = owner_of(tx, caller, account_name, domain_id)
    held = _hold(tx, owner)
    mine = (vpn_user.c.account_id == owner.account_id, vpn_user.c.live == 1)
    if tx.scalar(select(vpn_user.c.id).where(*mine, vpn_user.c.username == username)) is not None:
        raise ParameterError(f"the account has a VPN user {username} already", parameter="username")
    most = value(tx, keys.remote_access_vpn_user_limit)
    if int(tx.scalar(select(func.count()).select_from(vpn_user).where(*mine))) >= most:
        raise LimitExceeded(f"the account has {most} VPN users, the most there may be")
    user_id = tx.insert(
        insert(vpn_user).values(
            account_id=owner.account_id,
            domain_id=owner.domain_id,
            username=username,
            password=password,
            state=str(RuleState.ADD),
            created_at=tx.now,
        )
    )
    plan = vpn_user_add(user=user_id, networks=[(each, virtual_router.changed(tx, each)) for each in held])
    job = _job(tx, caller, owner, user_id, plan, "addVpnUser", types.VPN_USER_ADD, f"Adding VPN user {username}")
    return job, str(_by_id(tx, user_id)["uuid"])


def remove(tx: Tx, caller: Caller, *, username: str, account_name: str | None, domain_id: int | None) -> str:
    """Let somebody in no more; the job's UUID."""
    owner = owner_of(tx, caller, account_name, domain_id)
    held = _hold(tx, owner)
    mine = (vpn_user.c.account_id == owner.account_id, vpn_user.c.live == 1, vpn_user.c.username == username)
    user_id = tx.scalar(select(vpn_user.c.id).where(*mine))
    if user_id is None:
        raise ParameterError(f"the account has no VPN user {username!r}", parameter="username")
    if not transition(tx, vpn_user, user_id, RULE, RuleState.REVOKE):
        raise ResourceInUse(f"VPN user {username} is being removed already")
    plan = vpn_user_remove(user=user_id, networks=[(each, virtual_router.changed(tx, each)) for each in held])
    text = f"Removing VPN user {username}"
    return _job(tx, caller, owner, user_id, plan, "removeVpnUser", types.VPN_USER_REMOVE, text)


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    user_id: int | None,
    username: str | None,
    account_name: str | None,
    domain_id: int | None,
    list_all: bool | None,
    is_recursive: bool | None,
    keyword: str | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """VPN users within the bounds of the call; passwords are never told."""
    offset, limit = bounds(tx, page_number, page_size)
    within = scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=user_id is not None,
        tx=tx,
    )
    where: list[ColumnElement[bool]] = [
        vpn_user.c.live == 1,
        *within.where(vpn_user.c.account_id, vpn_user.c.domain_id),
    ]
    if user_id is not None:
        where.append(vpn_user.c.id == user_id)
    if username is not None:
        where.append(vpn_user.c.username == username)
    if keyword:
        where.append(like(vpn_user.c.username, keyword))
    rows, count = page(tx, vpn_user, where, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, user_id: int) -> dict[str, Any]:
    """One VPN user, as lists show it."""
    return _views(tx, [_by_id(tx, user_id)])[0]


def _hold(tx: Tx, owner: Owner) -> list[int]:
    """Networks of the account with a VPN, held in order, so that users and VPNs do not come at the same time."""
    ways_in = (remote_access_vpn.c.live == 1, remote_access_vpn.c.account_id == owner.account_id)
    found = sorted(tx.execute(select(remote_access_vpn.c.network_id).where(*ways_in)).scalars())
    return [each for each in found if networks.use(tx, each)]


def _by_id(tx: Tx, user_id: int) -> RowMapping:
    row = tx.one(select(vpn_user).where(vpn_user.c.id == user_id))
    if row is None:
        raise LookupError(f"VPN user {user_id}")
    return row


def _job(tx: Tx, caller: Caller, owner: Owner, user_id: int, plan: Plan, command: str, event: str, text: str) -> str:
    started = record(
        tx,
        type=event,
        description=text,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=caller.user_id,
        state=SCHEDULED,
        resource_kind=KIND,
        resource_id=user_id,
    )
    job = submit(
        tx,
        plan,
        Owner(owner.account_id, owner.domain_id, caller.user_id),
        command=command,
        instance_kind=KIND,
        instance_id=user_id,
        resource_key=f"vpn-user:{user_id}",
        deadline_seconds=DEADLINE_SECONDS,
        start_event_id=started,
    )
    return job.uuid


def _views(tx: Tx, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    accounts = related(tx, account, (row["account_id"] for row in rows))
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "username": row["username"],
            "account": accounts[row["account_id"]]["name"],
            "domain_id": domains[row["domain_id"]]["uuid"],
            "domain_name": domains[row["domain_id"]]["name"],
            "state": row["state"],
        }
        for row in rows
    ]
