"""What happens once, when a database is new: the administrator gets a generated password."""

import os
import secrets
from pathlib import Path

from argon2 import PasswordHasher
from sqlalchemy import select, update

from pileus.server.db.tables.account import users
from pileus.server.db.transaction import Database
from pileus.server.domain.account import ADMIN_USER


def admin_password(database: Database, path: Path) -> bool:
    """Give the administrator a password, kept in `path` for its owner only. False when there is one already."""
    mine = users.c.id == ADMIN_USER
    with database.read() as tx:
        if tx.scalar(select(users.c.password_hash).where(mine)) is not None:
            return False
    password = secrets.token_urlsafe(12)
    digest = PasswordHasher().hash(password)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(password + "\n")
    with database.write() as tx:
        changed = tx.execute(update(users).where(mine, users.c.password_hash.is_(None)).values(password_hash=digest))
        return changed.rowcount == 1
