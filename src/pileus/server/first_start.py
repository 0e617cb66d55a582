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
    # The file first: a password that is in force and written nowhere would lock everybody out.
    half = path.with_name(path.name + ".new")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(password + "\n")
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    with database.write() as tx:
        changed = tx.execute(update(users).where(mine, users.c.password_hash.is_(None)).values(password_hash=digest))
        given = changed.rowcount == 1
    if not given:
        # Another server of the farm was first: what is in force is written there.
        path.unlink()
    return given
