"""Jobs and leases."""

from sqlalchemy import BigInteger, Column, Index, Integer, SmallInteger, String, Table, Text

from pileus.server.db.tables.column import Key, LongText, Name, Short, instant, key, metadata, uuid_column

job = Table(
    "job",
    metadata,
    key(),
    uuid_column(),
    Column("workflow", Short, nullable=False),
    Column("command", Name, nullable=False),
    Column("account_id", Key, nullable=False),
    Column("domain_id", Key, nullable=False),
    Column("user_id", Key, nullable=False),
    Column("instance_kind", Short, nullable=True),
    Column("instance_id", Key, nullable=True),
    Column("resource_key", String(80), nullable=True),
    Column("running_key", String(80), nullable=True, unique=True),
    Column("parent_id", Key, nullable=True),
    Column("start_event_id", Key, nullable=True),
    Column("phase", Short, nullable=False),
    Column("open", SmallInteger, nullable=True, default=1),
    Column("plan", LongText, nullable=False),
    Column("position", Integer, nullable=False, default=0),
    Column("round", Integer, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("avoid", LongText, nullable=False),
    Column("waiting_for", Name, nullable=True),
    instant("wake_at", nullable=True),
    Column("lease_owner", Name, nullable=True),
    Column("lease_token", BigInteger, nullable=False, default=0),
    instant("lease_until_at", nullable=True),
    instant("deadline_at", nullable=True),
    Column("error_code", Integer, nullable=True),
    Column("error_text", Text, nullable=True),
    Column("result", LongText, nullable=True),
    instant("created_at"),
    instant("completed_at", nullable=True),
    Index("ix_job_open_wake", "open", "wake_at", "id"),
    Index("ix_job_waiting", "waiting_for"),
    Index("ix_job_instance", "open", "instance_kind", "instance_id"),
    Index("ix_job_account", "account_id", "open", "id"),
    Index("ix_job_parent", "open", "parent_id"),
    Index("ix_job_resource", "open", "resource_key", "id"),
)
"""One saga, one row. `open` is 1 until the job has ended, then NULL. `wake_at` NULL means parked until somebody wakes
what it is `waiting_for`. `running_key` repeats `resource_key` while the job runs: two at once cannot be stored.
`plan`, `avoid` and `result` are JSON."""

lease = Table(
    "lease",
    metadata,
    Column("name", Name, primary_key=True),
    Column("owner", Name, nullable=True),
    Column("token", BigInteger, nullable=False, default=0),
    instant("until_at"),
    instant("ran_at"),
)
"""Who in the farm may run a reconciler now, and when it last ran."""

topic_lock = Table(
    "topic_lock",
    metadata,
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("taken", BigInteger, nullable=False, default=0),
)
"""Rows locked by whoever parks on a topic or wakes it, on databases with several writers (see db.topics)."""
