"""Accounts: what owns things, and is isolated from others. Guide: "Accounts, Users, and Domains"."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping

from pileus.server import events
from pileus.server.auth import visibility
from pileus.server.config import keys, value
from pileus.server.db.queries import account as accounts
from pileus.server.db.queries import count
from pileus.server.db.queries import domain as domains
from pileus.server.db.queries.page import grouped, like, related
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.account import users as users_table
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.account import ACCOUNT, ADMIN_ACCOUNT, UNLIMITED, AccountState, AccountType, Resource
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.dns_name import dns_domain
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.ids import Account, Id
from pileus.server.domain.vm import VmState
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import submit
from pileus.server.services import session, user
from pileus.server.services.choice import one_of
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds
from pileus.server.services.privilege import account_type as numbered
from pileus.server.services.privilege import granted, require_over
from pileus.server.workflows.account_close import disable_account
from pileus.server.workflows.account_delete import delete_account, shut
from pileus.server.workflows.drain import CLEAN_UP_SECONDS

LIMIT_KEYS = {
    Resource.INSTANCE: keys.max_account_user_vms,
    Resource.PUBLIC_IP: keys.max_account_public_ips,
    Resource.VOLUME: keys.max_account_volumes,
    Resource.SNAPSHOT: keys.max_account_snapshots,
    Resource.TEMPLATE: keys.max_account_templates,
}
"""The settings that limit accounts without a limit of their own."""

_FIELDS = {
    Resource.INSTANCE: "vm",
    Resource.PUBLIC_IP: "ip",
    Resource.VOLUME: "volume",
    Resource.SNAPSHOT: "snapshot",
    Resource.TEMPLATE: "template",
}


def create(
    tx: Tx,
    caller: Caller,
    *,
    name: str | None,
    account_type: int,
    domain_id: int | None,
    network_domain: str | None,
    username: str,
    password_hash: str,
    firstname: str,
    lastname: str,
    email: str,
    timezone: str | None,
) -> dict[str, Any]:
    """A new account with its first user. Its name is the user's unless given."""
    home = int(caller.domain_id) if domain_id is None else domain_id
    visibility.require(tx, caller, None, home, "this domain")
    kind = granted(caller, account_type, home)
    if domains.by_id(tx, home, active=True) is None:
        raise ParameterError("the domain is being deleted", parameter="domainid")
    user.check_username(tx, home, username)
    name = checked_name(name or username, "account")
    if accounts.named(tx, home, name) is not None:
        raise ParameterError(f"the domain has an account {name} already", parameter="account")
    suffix = dns_domain(network_domain, "networkdomain") if network_domain else None
    account_id = accounts.add(tx, name=name, type=int(kind), domain_id=home, network_domain=suffix)
    count.open_counts(tx, count.ACCOUNT, account_id, default_limits(tx, kind))
    row = _live(tx, account_id)
    _event(tx, caller, row, events.types.ACCOUNT_CREATE, f"creating account {name}")
    user.add(
        tx,
        caller,
        row,
        username=username,
        password_hash=password_hash,
        firstname=firstname,
        lastname=lastname,
        email=email,
        timezone=timezone,
    )
    return view(tx, caller, account_id)


def default_limits(tx: Tx, kind: AccountType) -> dict[Resource, int]:
    """Limits of an account nobody set any for. Root administrators have none."""
    if kind is AccountType.ADMIN:
        return dict.fromkeys(Resource, UNLIMITED)
    return {resource: value(tx, key) for resource, key in LIMIT_KEYS.items()}


def update(
    tx: Tx,
    caller: Caller,
    *,
    account_id: int | None,
    name: str | None,
    domain_id: int | None,
    new_name: str | None,
    network_domain: str | None,
) -> dict[str, Any]:
    """Rename an account or change the network domain of its networks to come."""
    row = _chosen(tx, caller, account_id, name, domain_id)
    changes: dict[str, Any] = {}
    if new_name is not None and new_name != row["name"]:
        checked_name(new_name, "newname")
        if accounts.named(tx, row["domain_id"], new_name) is not None:
            raise ParameterError(f"the domain has an account {new_name} already", parameter="newname")
        changes["name"] = new_name
    if network_domain is not None:
        changes["network_domain"] = dns_domain(network_domain, "networkdomain") if network_domain else None
    if changes:
        accounts.change(tx, row["id"], **changes)
    _event(tx, caller, row, events.types.ACCOUNT_UPDATE, f"updating account {row['name']}")
    return view(tx, caller, row["id"])


def delete(tx: Tx, caller: Caller, account_id: Id[Account]) -> str:
    """Remove an account with everything it owns; returns the job's UUID.

    Nobody gets in from this transaction on, and there is no way back. Asked again, it tries again.
    """
    row = _chosen(tx, caller, account_id, None, None)
    _not_built_in(caller, row)
    shut(tx, row["id"])
    plan = delete_account(account=int(row["id"]))
    return _submit(
        tx,
        caller,
        row,
        plan,
        "deleteAccount",
        events.types.ACCOUNT_DELETE,
        "deleting account",
        deadline_seconds=CLEAN_UP_SECONDS,
    )


def disable(
    tx: Tx, caller: Caller, *, account_id: int | None, name: str | None, domain_id: int | None, only_lock: bool
) -> str:
    """Let nobody of an account in, from this transaction on, and stop its guests; returns the job's UUID.

    With `only_lock` the guests run on.
    """
    row = _chosen(tx, caller, account_id, name, domain_id)
    _not_built_in(caller, row)
    _move(tx, row, AccountState.LOCKED if only_lock else AccountState.DISABLED)
    if not only_lock:
        accounts.change(tx, row["id"], cleanup_required=1)
    plan = disable_account(account=int(row["id"]), stop=not only_lock)
    return _submit(tx, caller, row, plan, "disableAccount", events.types.ACCOUNT_DISABLE, "disabling account")


def lock(tx: Tx, caller: Caller, *, account_id: int | None, name: str | None, domain_id: int | None) -> dict[str, Any]:
    """Let nobody of an account in; its guests run on."""
    row = _chosen(tx, caller, account_id, name, domain_id)
    _not_built_in(caller, row)
    _move(tx, row, AccountState.LOCKED)
    _event(tx, caller, row, events.types.ACCOUNT_LOCK, f"locking account {row['name']}")
    return view(tx, caller, row["id"])


def enable(
    tx: Tx, caller: Caller, *, account_id: int | None, name: str | None, domain_id: int | None
) -> dict[str, Any]:
    """Let the users of an account in again."""
    row = _chosen(tx, caller, account_id, name, domain_id)
    _move(tx, row, AccountState.ENABLED)
    accounts.change(tx, row["id"], cleanup_required=0)
    _event(tx, caller, row, events.types.ACCOUNT_ENABLE, f"enabling account {row['name']}")
    return view(tx, caller, row["id"])


def view(tx: Tx, caller: Caller, account_id: int) -> dict[str, Any]:
    """One account with its users and counts."""
    return _views(tx, [_live(tx, account_id)])[0]


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    account_id: int | None,
    account_type: int | None,
    domain_id: int | None,
    is_cleanup_required: bool | None,
    name: str | None,
    state: str | None,
    list_all: bool | None,
    is_recursive: bool | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Accounts in the caller's scope."""
    scope = visibility.scope(
        caller,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=account_id is not None or (name is not None and domain_id is None),
        tx=tx,
    )
    where: list[ColumnElement[bool]] = scope.where(account.c.id, account.c.domain_id)
    if account_id is not None:
        where.append(account.c.id == account_id)
    if account_type is not None:
        where.append(account.c.type == int(numbered(account_type)))
    if is_cleanup_required is not None:
        where.append(account.c.cleanup_required == int(is_cleanup_required))
    if name is not None:
        where.append(account.c.name == name)
    if state is not None:
        where.append(account.c.state == one_of(AccountState, state, "state"))
    if keyword:
        where.append(like(account.c.name, keyword))
    offset, limit = bounds(tx, page, page_size)
    rows, total = accounts.list_page(tx, where, offset=offset, limit=limit)
    return _views(tx, rows), total


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    ids = [int(row["id"]) for row in rows]
    homes = related(tx, domain, (row["domain_id"] for row in rows), "uuid", "name")
    members = grouped(tx, users_table, ids, users_table.c.account_id)
    users = [one for of in members.values() for one in of if one["live"]]
    # Users are in their account's domain.
    told = {view["id"]: view for view in user.views(tx, users, of={row["id"]: row for row in rows}, inside=homes)}
    counts = count.of_many(tx, count.ACCOUNT, ids)
    states = accounts.guest_states(tx, ids)
    views = []
    for row in rows:
        guests = states.get(row["id"], {})
        views.append(
            {
                "id": row["uuid"],
                "name": row["name"],
                "account_type": row["type"],
                "domain_id": homes[row["domain_id"]]["uuid"],
                "domain": homes[row["domain_id"]]["name"],
                "state": row["state"],
                "is_cleanup_required": bool(row["cleanup_required"]),
                "is_default": row["id"] == ADMIN_ACCOUNT,
                "network_domain": row["network_domain"],
                "created": row["created_at"],
                "vm_running": guests.get(str(VmState.RUNNING), 0),
                "vm_stopped": guests.get(str(VmState.STOPPED), 0),
                "user": [told[one["uuid"]] for one in members[row["id"]] if one["uuid"] in told],
                **_limits(counts.get(int(row["id"]), {})),
            }
        )
    return views


_NAMES = tuple((kind, f"{field}_limit", f"{field}_total", f"{field}_available") for kind, field in _FIELDS.items())
_NOTHING = count.Count(0, UNLIMITED)


def _limits(counts: dict[Resource, count.Count]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for resource, limit, total, available in _NAMES:
        found = counts.get(resource, _NOTHING)
        told[limit] = _limit(found.maximum)
        told[total] = found.used
        told[available] = _limit(found.available)
    return told


def _limit(number: int) -> str:
    return "Unlimited" if number == UNLIMITED else str(number)


def _chosen(tx: Tx, caller: Caller, account_id: int | None, name: str | None, domain_id: int | None) -> RowMapping:
    """The account a call names by id, or by name and domain, if the caller may act on it."""
    if account_id is not None:
        row = _live(tx, account_id)
    elif name is None:
        raise ParameterError("either id or account is required", parameter="account")
    else:
        home = int(caller.domain_id) if domain_id is None else domain_id
        visibility.require(tx, caller, None, home, "this domain")
        found = accounts.named(tx, home, name)
        if found is None:
            raise ParameterError(f"could not find account {name} in this domain", parameter="account")
        row = found
    require_over(tx, caller, row)
    return row


def _live(tx: Tx, account_id: int) -> RowMapping:
    row = accounts.by_id(tx, account_id)
    if row is None:
        raise ParameterError("there is no such account", parameter="id")
    return row


def _not_built_in(caller: Caller, row: RowMapping) -> None:
    if row["id"] == ADMIN_ACCOUNT:
        raise ParameterError("the built-in administrator stays: the cloud would be shut for good", parameter="id")
    if row["id"] == caller.account_id:
        raise ParameterError("this is your own account", parameter="id")


def _move(tx: Tx, row: RowMapping, new: AccountState) -> None:
    if row["state"] != new and not transition(tx, account, row["id"], ACCOUNT, new):
        raise ParameterError(f"account {row['name']} is {row['state']} and cannot be {new}", parameter="account")
    if new is not AccountState.ENABLED:
        session.end_of_account(tx, row["id"])


def _submit(
    tx: Tx,
    caller: Caller,
    row: RowMapping,
    plan: Plan,
    command: str,
    type: str,
    text: str,
    *,
    deadline_seconds: float = 3600,
) -> str:
    started = _event(tx, caller, row, type, f"{text} {row['name']}", state="Scheduled")
    job = submit(
        tx,
        plan,
        Owner(caller.account_id, caller.domain_id, caller.user_id),
        command=command,
        instance_kind="Account",
        instance_id=row["id"],
        resource_key=f"account:{row['id']}",
        start_event_id=started,
        deadline_seconds=deadline_seconds,
    )
    return job.uuid


def _event(tx: Tx, caller: Caller, row: RowMapping, type: str, text: str, *, state: str = "Completed") -> int:
    return events.record(
        tx,
        type=type,
        description=text,
        account_id=row["id"],
        domain_id=row["domain_id"],
        user_id=caller.user_id,
        resource_kind="Account",
        resource_id=row["id"],
        state=state,
    )
