"""Users, and who they are: a user with its account and domain."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, bindparam, insert, select, update

from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.ancestry import domains_above
from pileus.server.db.tables.account import account, domain, users
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import AccountState


def by_id(tx: Tx, user_id: int) -> RowMapping | None:
    """The live user."""
    return tx.one(select(users).where(users.c.id == user_id, users.c.live == 1))


def named(tx: Tx, domain_id: int, username: str) -> RowMapping | None:
    """The live user of this name in a domain."""
    return tx.one(select(users).where(users.c.domain_id == domain_id, users.c.username == username, users.c.live == 1))


def of_account(tx: Tx, account_id: int) -> list[RowMapping]:
    """The live users of an account."""
    return tx.all(select(users).where(users.c.account_id == account_id, users.c.live == 1).order_by(users.c.id))


def add(tx: Tx, **values: Any) -> int:
    """Insert a user; returns its key."""
    return tx.insert(insert(users).values(created_at=tx.now, **values))


def change(tx: Tx, user_id: int, **values: Any) -> None:
    """Change columns of a user."""
    tx.execute(update(users).where(users.c.id == user_id).values(**values))


def remove(tx: Tx, *which: ColumnElement[bool]) -> None:
    """Remove users: the row stays for history, names and keys are free, and no secret of theirs is left."""
    gone = {"live": None, "state": str(AccountState.REMOVED), "removed_at": tx.now}
    secrets = {"api_key": None, "secret_key": None, "password_hash": None}
    tx.execute(update(users).where(users.c.live == 1, *which).values(**gone, **secrets))


def drop_keys(tx: Tx, *which: ColumnElement[bool]) -> None:
    """Take the API keys from users: calls signed with them are nobody's from now on."""
    tx.execute(update(users).where(users.c.live == 1, *which).values(api_key=None, secret_key=None))


def key_taken(tx: Tx, api_key: str, user_id: int) -> bool:
    """Whether somebody else has this API key."""
    return tx.scalar(select(users.c.id).where(users.c.api_key == api_key, users.c.id != user_id)) is not None


def identity_by_key(tx: Tx, api_key: str) -> RowMapping | None:
    """The user of an API key with account and domain, if all of them are in use."""
    return _BY_KEY.one(tx, the_key=api_key)


def identity_by_id(tx: Tx, user_id: int) -> RowMapping | None:
    """A user with account and domain, if all of them are in use."""
    return tx.one(_identity().where(users.c.id == user_id))


def identity_by_name(tx: Tx, domain_id: int, username: str) -> RowMapping | None:
    """A user by name and domain, with account and domain, if all of them are in use."""
    return tx.one(_identity().where(users.c.domain_id == domain_id, users.c.username == username))


def domain_by_path(tx: Tx, path: str) -> int | None:
    """The live domain of a path ("/a/b/")."""
    levels = 1 if path == "/" else path.count("/")
    keys = domains_above(tx, path)
    return keys[-1] if len(keys) == levels else None


def path_of_domain(tx: Tx, given: str) -> str | None:
    """The path of a live domain, from its UUID or key."""
    match = domain.c.id == int(given) if given.isdecimal() and len(given) < 19 else domain.c.uuid == given.lower()
    found = tx.scalar(select(domain.c.path).where(match, domain.c.live == 1))
    return None if found is None else str(found)


def _identity() -> Select[Any]:
    """Only live and enabled users of live and enabled accounts; built-in system accounts are nobody's to sign in to."""
    return (
        select(
            users.c.id,
            users.c.uuid,
            users.c.username,
            users.c.password_hash,
            users.c.secret_key,
            users.c.firstname,
            users.c.lastname,
            users.c.email,
            users.c.timezone,
            users.c.account_id,
            account.c.uuid.label("account_uuid"),
            account.c.name.label("account_name"),
            account.c.type.label("account_type"),
            account.c.domain_id,
            domain.c.uuid.label("domain_uuid"),
            domain.c.path.label("domain_path"),
        )
        .join(account, account.c.id == users.c.account_id)
        .join(domain, domain.c.id == account.c.domain_id)
        .where(
            users.c.live == 1,
            users.c.state == str(AccountState.ENABLED),
            account.c.live == 1,
            account.c.state == str(AccountState.ENABLED),
            account.c.system == 0,
            domain.c.live == 1,
            domain.c.state == "Active",
        )
    )


_BY_KEY = Prepared(_identity().where(users.c.api_key == bindparam("the_key")))
