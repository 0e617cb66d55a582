"""Logins and failed logins. Tokens are stored as hashes only."""

from sqlalchemy import RowMapping, case, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from pileus.server.db.tables.account import login_failure, session, users
from pileus.server.db.transaction import Tx


def add(tx: Tx, *, token_hash: str, key_hash: str, user_id: int, expires_at: int) -> None:
    """Store a login."""
    tx.execute(
        insert(session).values(
            token_hash=token_hash,
            key_hash=key_hash,
            user_id=user_id,
            created_at=tx.now,
            used_at=tx.now,
            expires_at=expires_at,
        )
    )


def by_token(tx: Tx, token_hash: str) -> RowMapping | None:
    """A login by the hash of its token."""
    return tx.one(select(session).where(session.c.token_hash == token_hash))


def touch(tx: Tx, token_hash: str) -> None:
    """Note that a login is in use."""
    tx.execute(update(session).where(session.c.token_hash == token_hash).values(used_at=tx.now))


def end(tx: Tx, token_hash: str) -> int | None:
    """End one login; returns whose it was."""
    found = by_token(tx, token_hash)
    tx.execute(delete(session).where(session.c.token_hash == token_hash))
    return None if found is None else int(found["user_id"])


def end_of_user(tx: Tx, user_id: int) -> None:
    """End all logins of a user."""
    tx.execute(delete(session).where(session.c.user_id == user_id))


def end_of_account(tx: Tx, account_id: int) -> None:
    """End all logins of an account's users."""
    of_account = select(users.c.id).where(users.c.account_id == account_id)
    tx.execute(delete(session).where(session.c.user_id.in_(of_account)))


def end_stale(tx: Tx, *, used_before: int) -> None:
    """Forget logins that have ended by time, and failures that no longer count."""
    tx.execute(delete(session).where(or_(session.c.expires_at < tx.now, session.c.used_at < used_before)))
    tx.execute(delete(login_failure).where(login_failure.c.until_at < tx.now))


def attempt(tx: Tx, subject: str, *, until: int) -> int:
    """Count a login attempt before it is judged, so that no burst passes the bound; returns attempts so far.

    Attempts are forgotten at the instant set by the first of them.
    """
    over = login_failure.c.until_at <= tx.now
    count = update(login_failure).where(login_failure.c.subject == subject)
    count = count.values(
        failures=case((over, 1), else_=login_failure.c.failures + 1),
        until_at=case((over, until), else_=login_failure.c.until_at),
    )
    if tx.execute(count).rowcount == 0:
        try:
            with tx.connection.begin_nested():
                tx.execute(insert(login_failure).values(subject=subject, failures=1, until_at=until))
        except IntegrityError:
            tx.execute(count)
    return int(tx.scalar(select(login_failure.c.failures).where(login_failure.c.subject == subject)))


def forgive(tx: Tx, subject: str) -> None:
    """Forget the attempts on a subject."""
    tx.execute(delete(login_failure).where(login_failure.c.subject == subject))


def give_back(tx: Tx, subject: str) -> None:
    """Uncount one attempt that turned out to be good."""
    count = update(login_failure).where(login_failure.c.subject == subject, login_failure.c.failures > 0)
    tx.execute(count.values(failures=login_failure.c.failures - 1))
