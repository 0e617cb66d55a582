"""Events and alerts."""

from sqlalchemy import Column, ForeignKey, Index, Integer, SmallInteger, Table, Text, UniqueConstraint

from pileus.server.db.tables.column import Key, Name, Short, instant, key, metadata, uuid_column

event = Table(
    "event",
    metadata,
    key(),
    uuid_column(),
    Column("type", Short, nullable=False),
    Column("level", Short, nullable=False),
    Column("state", Short, nullable=False),
    Column("description", Text, nullable=False),
    Column("account_id", Key, nullable=False),
    Column("domain_id", Key, nullable=False),
    Column("user_id", Key, nullable=False),
    Column("resource_kind", Short, nullable=True),
    Column("resource_id", Key, nullable=True),
    Column("zone_id", Key, nullable=True),
    Column("start_id", Key, nullable=True),
    Column("facts", Text, nullable=True),
    instant("created_at"),
    Index("ix_event_account", "account_id", "id"),
    Index("ix_event_created", "created_at"),
    Index("ix_event_start", "start_id"),
)
"""Written in the transaction of the change it tells of. `start_id` is the SCHEDULED event of the same job; `facts`
(JSON) hold what usage is computed from."""

alert = Table(
    "alert",
    metadata,
    key(),
    uuid_column(),
    Column("type", SmallInteger, nullable=False),
    Column("subject_key", Name, nullable=False),
    Column("standing", SmallInteger, nullable=True, default=1),
    Column("description", Text, nullable=False),
    Column("zone_id", Key, nullable=True),
    Column("pod_id", Key, nullable=True),
    instant("created_at"),
    instant("cleared_at", nullable=True),
    UniqueConstraint("type", "subject_key", "standing"),
    Index("ix_alert_created", "created_at"),
)
"""`standing` is 1 until what it warns of is over, then NULL: one row per trouble."""

alert_mail = Table(
    "alert_mail",
    metadata,
    key(),
    uuid_column(),
    Column("alert_id", Key, ForeignKey("alert.id"), nullable=False),
    Column("subject", Name, nullable=False),
    Column("body", Text, nullable=False),
    Column("due", SmallInteger, nullable=True, default=1),
    Column("attempts", Integer, nullable=False, default=0),
    Column("failure", Text, nullable=True),
    instant("next_at"),
    instant("created_at"),
    instant("sent_at", nullable=True),
    Index("ix_alert_mail_due", "due", "next_at"),
)
"""A mail for every alert raised and every one cleared, written in the same transaction. `due` is 1 until a mail server
has taken it, then NULL; the UUID is its Message-ID, so one sent twice is known as the same."""
