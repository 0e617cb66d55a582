"""Users: who signs in on behalf of an account. Guide: "Accounts, Users, and Domains"."""

import base64
import hashlib
import hmac
import secrets
import zoneinfo
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, RowMapping

from pileus.server import config, events
from pileus.server.auth import visibility
from pileus.server.db.queries import account as accounts
from pileus.server.db.queries import user as users
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.account import users as users_table
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.account import ACCOUNT, ADMIN_USER, AccountState
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import InternalError, ParameterError
from pileus.server.domain.ids import Id, User
from pileus.server.jobs.submit import submit
from pileus.server.services import session
from pileus.server.services.choice import one_of
from pileus.server.services.naming import checked_name, checked_text
from pileus.server.services.paging import bounds
from pileus.server.services.privilege import account_type as numbered
from pileus.server.services.privilege import require_over
from pileus.server.workflows.account_close import disable_user

_KEY_BYTES = 64
_LEAST_KEY = 32
"""Characters of the shortest API or secret key a caller may choose for a user."""


def create(
    tx: Tx,
    caller: Caller,
    *,
    account_name: str,
    domain_id: int | None,
    username: str,
    password_hash: str,
    firstname: str,
    lastname: str,
    email: str,
    timezone: str | None,
) -> dict[str, Any]:
    """A new user of an account that is there already."""
    owner = visibility.owner(tx, caller, account_name, domain_id)
    row = _account(tx, owner.account_id)
    require_over(tx, caller, row)
    user_id = add(
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
    return view(tx, caller, user_id)


def add(
    tx: Tx,
    caller: Caller,
    of: RowMapping,
    *,
    username: str,
    password_hash: str,
    firstname: str,
    lastname: str,
    email: str,
    timezone: str | None,
) -> int:
    """Insert a user of an account the caller was found to have power over; returns its key."""
    check_username(tx, of["domain_id"], username)
    for text, parameter in ((firstname, "firstname"), (lastname, "lastname"), (email, "email")):
        checked_text(text, parameter)
    user_id = users.add(
        tx,
        account_id=of["id"],
        domain_id=of["domain_id"],
        username=username,
        password_hash=password_hash,
        firstname=firstname,
        lastname=lastname,
        email=email,
        timezone=_timezone(timezone),
    )
    _event(tx, caller, of, events.types.USER_CREATE, f"creating user {username}", user_id)
    return user_id


def update(
    tx: Tx,
    caller: Caller,
    user_id: Id[User],
    *,
    username: str | None,
    password_hash: str | None,
    firstname: str | None,
    lastname: str | None,
    email: str | None,
    timezone: str | None,
    api_key: str | None,
    secret_key: str | None,
) -> dict[str, Any]:
    """Change a user. A new password ends its logins; keys are changed both or neither."""
    row, of = _over(tx, caller, user_id)
    changes: dict[str, Any] = {}
    if username is not None and username != row["username"]:
        check_username(tx, row["domain_id"], username)
        changes["username"] = username
    for column, value in (("firstname", firstname), ("lastname", lastname), ("email", email)):
        if value is not None:
            changes[column] = checked_text(value, column)
    if timezone is not None:
        changes["timezone"] = _timezone(timezone)
    if (api_key is None) != (secret_key is None):
        raise ParameterError("userapikey and usersecretkey are changed together", parameter="userapikey")
    if api_key is not None and secret_key is not None:
        changes |= _chosen_keys(tx, user_id, api_key, secret_key)
    if changes:
        users.change(tx, user_id, **changes)
    if password_hash is not None:
        set_password(tx, user_id, password_hash)
    _event(tx, caller, of, events.types.USER_UPDATE, f"updating user {row['username']}", user_id)
    return view(tx, caller, user_id)


def set_password(tx: Tx, user_id: int, password_hash: str) -> None:
    """Give a user a password (already hashed) and end its logins."""
    users.change(tx, user_id, password_hash=password_hash)
    session.end_of_user(tx, user_id)


def delete(tx: Tx, caller: Caller, user_id: Id[User]) -> None:
    """Remove a user; its logins and keys end at once."""
    row, of = _over(tx, caller, user_id)
    _not_built_in(user_id)
    if user_id == caller.user_id:
        raise ParameterError("this is yourself", parameter="id")
    session.end_of_user(tx, user_id)
    users.remove(tx, users_table.c.id == int(user_id))
    _event(tx, caller, of, events.types.USER_DELETE, f"deleting user {row['username']}", user_id)


def disable(tx: Tx, caller: Caller, user_id: Id[User]) -> str:
    """Let a user in no more, from this transaction on; returns the UUID of the job that announces it."""
    row, of = _over(tx, caller, user_id)
    _not_built_in(user_id)
    _move(tx, row, AccountState.DISABLED)
    started = _event(
        tx, caller, of, events.types.USER_DISABLE, f"disabling user {row['username']}", user_id, state="Scheduled"
    )
    job = submit(
        tx,
        disable_user(account=int(of["id"])),
        Owner(caller.account_id, caller.domain_id, caller.user_id),
        command="disableUser",
        instance_kind="User",
        instance_id=user_id,
        resource_key=f"user:{user_id}",
        start_event_id=started,
    )
    return job.uuid


def enable(tx: Tx, caller: Caller, user_id: Id[User]) -> dict[str, Any]:
    """Let a user in again."""
    row, of = _over(tx, caller, user_id)
    _move(tx, row, AccountState.ENABLED)
    _event(tx, caller, of, events.types.USER_ENABLE, f"enabling user {row['username']}", user_id)
    return view(tx, caller, user_id)


def lock(tx: Tx, caller: Caller, user_id: Id[User]) -> dict[str, Any]:
    """Let a user in no more until it is enabled."""
    row, of = _over(tx, caller, user_id)
    _not_built_in(user_id)
    _move(tx, row, AccountState.LOCKED)
    _event(tx, caller, of, events.types.USER_LOCK, f"locking user {row['username']}", user_id)
    return view(tx, caller, user_id)


def register_keys(tx: Tx, caller: Caller, user_id: Id[User]) -> dict[str, Any]:
    """New API and secret keys, told this once; the old ones end."""
    row, of = _over(tx, caller, user_id)
    api_key, secret_key = secrets.token_urlsafe(_KEY_BYTES), secrets.token_urlsafe(_KEY_BYTES)
    users.change(tx, user_id, api_key=api_key, secret_key=secret_key)
    _event(tx, caller, of, events.types.REGISTER_USER_KEY, f"new keys for user {row['username']}", user_id)
    return {"api_key": api_key, "secret_key": secret_key}


def cloud_identifier(tx: Tx, caller: Caller, user_id: Id[User]) -> dict[str, Any]:
    """The name of this cloud, signed with the user's secret key (HMAC-SHA1, base64). 431 for a user without keys."""
    row, _ = _over(tx, caller, user_id)
    if not row["secret_key"]:
        raise ParameterError(f"user {row['username']} has no keys: register some first", parameter="userid")
    name = config.value(tx, config.keys.cloud_identifier)
    digest = hmac.new(row["secret_key"].encode(), name.encode(), hashlib.sha1).digest()
    return {"user_id": row["uuid"], "cloud_identifier": name, "signature": base64.b64encode(digest).decode()}


def view(tx: Tx, caller: Caller, user_id: int) -> dict[str, Any]:
    """One user. Keys and passwords are never part of it."""
    return views(tx, [_live(tx, user_id)])[0]


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    user_id: int | None,
    account_name: str | None,
    account_type: int | None,
    domain_id: int | None,
    list_all: bool | None,
    is_recursive: bool | None,
    state: str | None,
    username: str | None,
    keyword: str | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Users in the caller's scope."""
    scope = visibility.scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=user_id is not None,
        tx=tx,
    )
    kind = account.c.type
    built_in = account.c.system == 1
    where: list[ColumnElement[bool]] = [
        users_table.c.live == 1,
        users_table.c.account_id.not_in(accounts.keys_where(built_in)),
        *scope.where(users_table.c.account_id, users_table.c.domain_id),
    ]
    if user_id is not None:
        where.append(users_table.c.id == user_id)
    if account_type is not None:
        where.append(users_table.c.account_id.in_(accounts.keys_where(kind == int(numbered(account_type)))))
    if state is not None:
        where.append(users_table.c.state == one_of(AccountState, state, "state"))
    if username is not None:
        where.append(users_table.c.username == username)
    if keyword:
        where.append(like(users_table.c.username, keyword))
    offset, limit = bounds(tx, page_number, page_size)
    rows, total = page(tx, users_table, where, offset=offset, limit=limit)
    return views(tx, rows), total


def views(
    tx: Tx,
    rows: list[RowMapping],
    *,
    of: Mapping[int, RowMapping] | None = None,
    inside: Mapping[int, RowMapping] | None = None,
) -> list[dict[str, Any]]:
    """Users as they are told, without a secret among their fields. `of` and `inside`: their accounts and domains by
    key, if they are known."""
    if of is None:
        of = related(tx, account, (row["account_id"] for row in rows), "uuid", "name", "type")
    if inside is None:
        inside = related(tx, domain, (row["domain_id"] for row in rows), "uuid", "name")
    return [
        {
            "id": row["uuid"],
            "username": row["username"],
            "firstname": row["firstname"],
            "lastname": row["lastname"],
            "email": row["email"],
            "created": row["created_at"],
            "state": row["state"],
            "account": of[row["account_id"]]["name"],
            "account_id": of[row["account_id"]]["uuid"],
            "account_type": of[row["account_id"]]["type"],
            "domain_id": inside[row["domain_id"]]["uuid"],
            "domain": inside[row["domain_id"]]["name"],
            "timezone": row["timezone"],
            "is_default": row["id"] == ADMIN_USER,
        }
        for row in rows
    ]


def _over(tx: Tx, caller: Caller, user_id: int) -> tuple[RowMapping, RowMapping]:
    """The user and its account, if the caller may act on them."""
    row = _live(tx, user_id)
    of = _account(tx, row["account_id"])
    require_over(tx, caller, of)
    return row, of


def _live(tx: Tx, user_id: int) -> RowMapping:
    row = users.by_id(tx, user_id)
    if row is None:
        raise ParameterError("there is no such user", parameter="id")
    return row


def _account(tx: Tx, account_id: int) -> RowMapping:
    row = accounts.by_id(tx, account_id)
    if row is None:
        raise InternalError("a user whose account is gone")
    return row


def _not_built_in(user_id: int) -> None:
    if user_id == ADMIN_USER:
        raise ParameterError("the built-in administrator stays: the cloud would be shut for good", parameter="id")


def _move(tx: Tx, row: RowMapping, new: AccountState) -> None:
    if row["state"] == new:
        return
    if not transition(tx, users_table, row["id"], ACCOUNT, new):
        raise ParameterError(f"user {row['username']} is {row['state']} and cannot be {new}", parameter="id")
    if new is not AccountState.ENABLED:
        session.end_of_user(tx, row["id"])


def check_username(tx: Tx, domain_id: int, username: str) -> None:
    """431 unless a new user of the domain may have this name."""
    checked_name(username, "username")
    if users.named(tx, domain_id, username) is not None:
        raise ParameterError(f"username {username} is taken in this domain", parameter="username")


def _chosen_keys(tx: Tx, user_id: int, api_key: str, secret_key: str) -> dict[str, Any]:
    if min(len(api_key), len(secret_key)) < _LEAST_KEY or max(len(api_key), len(secret_key)) > 128:
        raise ParameterError(f"keys have {_LEAST_KEY} to 128 characters", parameter="userapikey")
    if users.key_taken(tx, api_key, user_id):
        raise ParameterError("this API key cannot be used", parameter="userapikey")
    return {"api_key": api_key, "secret_key": secret_key}


def _timezone(name: str | None) -> str | None:
    if not name:
        return None
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ParameterError(f"timezone {name!r} is none that is known", parameter="timezone") from None
    return name


def _event(
    tx: Tx, caller: Caller, of: RowMapping, type: str, text: str, user_id: int, *, state: str = "Completed"
) -> int:
    return events.record(
        tx,
        type=type,
        description=text,
        account_id=of["id"],
        domain_id=of["domain_id"],
        user_id=caller.user_id,
        resource_kind="User",
        resource_id=user_id,
        state=state,
    )
