"""Domains, accounts, users, sessions, limits."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, SmallInteger, String, Table, UniqueConstraint

from pileus.server.db.tables.column import Key, Name, Short, flag, instant, key, live, metadata, uuid_column

domain = Table(
    "domain",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("parent_id", Key, ForeignKey("domain.id"), nullable=True),
    Column("path", String(1024), nullable=False),
    Column("level", Integer, nullable=False, default=0),
    Column("network_domain", Name, nullable=True),
    Column("state", Short, nullable=False, default="Active"),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("parent_id", "name", "live"),
    Index("ix_domain_live", "live", "id"),
)
"""`path` is "/" for ROOT and "/a/b/" below it: a subtree is a prefix."""

account = Table(
    "account",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("state", Short, nullable=False, default="enabled"),
    Column("network_domain", Name, nullable=True),
    flag("cleanup_required"),
    flag("system"),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("domain_id", "name", "live"),
    Index("ix_account_live", "live", "system", "id"),
    Index("ix_account_live_domain", "live", "domain_id", "id"),
)

users = Table(
    "users",
    metadata,
    key(),
    uuid_column(),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("username", Name, nullable=False),
    Column("password_hash", Name, nullable=True),
    Column("firstname", Name, nullable=False, default=""),
    Column("lastname", Name, nullable=False, default=""),
    Column("email", Name, nullable=False, default=""),
    Column("timezone", Short, nullable=True),
    Column("state", Short, nullable=False, default="enabled"),
    Column("api_key", String(128), nullable=True, unique=True),
    Column("secret_key", String(128), nullable=True),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("domain_id", "username", "live"),
    Index("ix_users_account", "account_id"),
)
"""`domain_id` repeats the account's, to make user names unique within a domain. A NULL password never matches."""

session = Table(
    "session",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user_id", Key, ForeignKey("users.id"), nullable=False),
    Column("key_hash", String(64), nullable=False),
    instant("created_at"),
    instant("used_at"),
    instant("expires_at"),
    Index("ix_session_user", "user_id"),
)
"""A login. Only hashes are stored: reading the database gives no session."""

login_failure = Table(
    "login_failure",
    metadata,
    Column("subject", Name, primary_key=True),
    Column("failures", Integer, nullable=False),
    instant("until_at"),
)
"""Failed logins per account name and per address; blocked until `until_at`."""

resource_count = Table(
    "resource_count",
    metadata,
    Column("owner", String(16), primary_key=True),
    Column("owner_id", Key, primary_key=True),
    Column("resource", SmallInteger, primary_key=True),
    Column("used", BigInteger, nullable=False, default=0),
    Column("maximum", BigInteger, nullable=False, default=-1),
    flag("explicit"),
)
"""`owner` is "account" or "domain". `maximum` is the limit in force, -1 for none: one guarded UPDATE claims.
`explicit` marks a limit somebody set: those that are not follow the setting of their resource."""
