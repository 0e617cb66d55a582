"""Logins: who may open one, how long it lasts, and what ends it. Every check reads the database, so a login that ends
on one server has ended on all of them.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import RowMapping

from pileus.server import events
from pileus.server.auth import authenticators
from pileus.server.auth.authenticators import Check, Credentials
from pileus.server.config import keys, value
from pileus.server.db.queries import session as sessions
from pileus.server.db.queries import user as users
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.account import ROLE_OF, ROOT_DOMAIN, SYSTEM_ACCOUNT, SYSTEM_USER, AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import PermissionDenied, Unauthorized
from pileus.server.domain.ids import Id

_TOUCH_AFTER_MS = 30_000
_ADDRESS_FACTOR = 4
"""An address may stand for several people: it gets this many times the attempts of a user name."""


class BrokenSession(Unauthorized):
    """A login used with a wrong session key, or with none: it ends."""


@dataclass(frozen=True)
class Opened:
    """A new login: its secrets are told once, here."""

    token: str
    key: str
    view: dict[str, Any]


@dataclass(frozen=True)
class Signer:
    """Whoever holds an API key: the caller it would be, and the secret its signature must be made with."""

    caller: Caller
    secret: str


def signer(tx: Tx, api_key: str) -> Signer | None:
    """The user of an API key, None if there is none or it may not sign in."""
    row = users.identity_by_key(tx, api_key) if api_key else None
    if row is None or not row["secret_key"]:
        return None
    return Signer(_caller(row), row["secret_key"])


def login(
    database: Database, *, username: str, password: str, domain: str | None, domain_id: str | None, client: str
) -> Opened:
    """Open a login. 531 with one text for whatever was wrong; attempts are bounded per user name and per address.

    The password is checked outside any transaction. `domain` is a path ("/a/b" or "a/b") and `domain_id` a UUID or
    key; ROOT without either.
    """

    def attempt(tx: Tx) -> tuple[list[str], list[int], int, RowMapping | None, list[tuple[str, Check]]]:
        path = (users.path_of_domain(tx, domain_id) or "?") if domain_id else domain_path(domain)
        subjects = [f"user {path}{username}"[:255], f"address {client}"[:255]]
        bound = value(tx, keys.incorrect_login_attempts_allowed)
        until = tx.now + value(tx, keys.login_block_seconds) * 1000
        attempts = [sessions.attempt(tx, subject, until=until) for subject in subjects]
        found = users.domain_by_path(tx, path)
        row = None if found is None else users.identity_by_name(tx, found, username)
        return subjects, attempts, bound, row, authenticators.prepare(tx)

    subjects, (name_attempts, address_attempts), bound, row, checks = database.run(attempt)
    if name_attempts > bound or address_attempts > bound * _ADDRESS_FACTOR:
        raise PermissionDenied("too many failed logins; try again later")
    # Nobody is asked less for a user that is not there: how long it takes must not tell.
    if not authenticators.confirmed(checks, _credentials(username, password, row)) or row is None:
        database.run(lambda tx: _failed(tx, row, client))
        raise PermissionDenied("Failed to authenticate user; please check username, password and domain")
    user_id = row["id"]

    def enter(tx: Tx) -> Opened:
        now = users.identity_by_id(tx, user_id)
        if now is None:
            raise PermissionDenied("Failed to authenticate user; please check username, password and domain")
        sessions.forgive(tx, subjects[0])
        sessions.give_back(tx, subjects[1])
        return _open(tx, now)

    return database.run(enter)


def _credentials(username: str, password: str, row: RowMapping | None) -> Credentials:
    if row is None:
        return Credentials(username, "", "", password, None)
    return Credentials(
        row["username"], row["email"], f"{row['firstname']} {row['lastname']}", password, row["password_hash"]
    )


def domain_path(domain: str | None) -> str:
    """The path of a domain as it is stored, from any way of writing it."""
    inner = (domain or "").strip("/")
    return f"/{inner}/" if inner else "/"


def check(tx: Tx, token: str, key: str) -> tuple[Caller, bool]:
    """The caller of a session call, and whether the login should be touched. `Unauthorized` if it is not good."""
    row = sessions.by_token(tx, _hash(token))
    if row is None or row["expires_at"] < tx.now:
        raise Unauthorized
    if row["used_at"] + value(tx, keys.session_idle_timeout) * 1000 < tx.now:
        raise Unauthorized
    if not hmac.compare_digest(row["key_hash"], _hash(key)):
        raise BrokenSession
    identity = users.identity_by_id(tx, row["user_id"])
    if identity is None:
        raise Unauthorized
    return _caller(identity), row["used_at"] + _TOUCH_AFTER_MS < tx.now


def touch(tx: Tx, token: str) -> None:
    """Note that a login is in use."""
    sessions.touch(tx, _hash(token))


def logout(tx: Tx, token: str) -> None:
    """End a login everywhere, at once."""
    user_id = sessions.end(tx, _hash(token))
    row = None if user_id is None else users.identity_by_id(tx, user_id)
    if row is not None:
        _event(tx, row, events.types.USER_LOGOUT, "user has logged out")


def end_of_user(tx: Tx, user_id: int) -> None:
    """End all logins of a user, as when it is disabled or its password changes."""
    sessions.end_of_user(tx, user_id)


def end_of_account(tx: Tx, account_id: int) -> None:
    """End all logins of an account."""
    sessions.end_of_account(tx, account_id)


def _open(tx: Tx, row: RowMapping) -> Opened:
    idle = value(tx, keys.session_idle_timeout)
    sessions.end_stale(tx, used_before=tx.now - idle * 1000)
    token, key = secrets.token_urlsafe(32), secrets.token_urlsafe(20)
    expires_at = tx.now + value(tx, keys.session_length) * 1000
    sessions.add(tx, token_hash=_hash(token), key_hash=_hash(key), user_id=row["id"], expires_at=expires_at)
    _event(tx, row, events.types.USER_LOGIN, "user has logged in")
    view = {
        "timeout": idle,
        "user_id": row["uuid"],
        "username": row["username"],
        "firstname": row["firstname"],
        "lastname": row["lastname"],
        "account": row["account_name"],
        "domain_id": row["domain_uuid"],
        "type": str(row["account_type"]),
        "timezone": row["timezone"],
        "timezone_offset": _offset(row["timezone"], tx.now),
        "registered": "false",
        "session_key": key,
    }
    return Opened(token, key, view)


def _failed(tx: Tx, row: RowMapping | None, client: str) -> None:
    """Tell the account whose user was tried; for a user that is not there, the cloud's own.

    Both cost the same, and what was typed as a name stands nowhere: it may have been the password. Attempts beyond the
    bound are not told of, so nobody fills the log.
    """
    if row is not None:
        _event(tx, row, events.types.USER_LOGIN_FAILED, f"a login of this user from {client} has failed", level="WARN")
        return
    events.record(
        tx,
        type=events.types.USER_LOGIN_FAILED,
        description=f"a login from {client} of a user that is not there, or is disabled, has failed",
        account_id=SYSTEM_ACCOUNT,
        domain_id=ROOT_DOMAIN,
        user_id=SYSTEM_USER,
        level="WARN",
    )


def _offset(timezone: str | None, now: int) -> str | None:
    """Hours ahead of UTC at an instant, as text; None without a time zone, or with one this system knows no more."""
    if not timezone:
        return None
    try:
        offset = datetime.fromtimestamp(now / 1000, ZoneInfo(timezone)).utcoffset()
    except (KeyError, ValueError, OSError):
        return None
    return None if offset is None else str(offset.total_seconds() / 3600)


def _event(tx: Tx, row: RowMapping, event_type: str, description: str, *, level: str = "INFO") -> None:
    events.record(
        tx,
        type=event_type,
        description=description,
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=row["id"],
        level=level,
    )


def _caller(row: RowMapping) -> Caller:
    kind = AccountType(row["account_type"])
    return Caller(
        user_id=Id(row["id"]),
        account_id=Id(row["account_id"]),
        account_name=row["account_name"],
        domain_id=Id(row["domain_id"]),
        domain_path=row["domain_path"],
        type=kind,
        role=ROLE_OF[kind],
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
