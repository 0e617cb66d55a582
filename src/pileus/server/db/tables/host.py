"""Hosts, their capacity and load, the operations asked of them, and how their agents prove who they are."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from pileus.server.db.tables.column import (
    Key,
    LongText,
    Name,
    Short,
    flag,
    instant,
    key,
    live,
    metadata,
    uuid_column,
)

host = Table(
    "host",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("kind", Short, nullable=False),
    Column("state", Short, nullable=False),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("pod_id", Key, ForeignKey("pod.id"), nullable=True),
    Column("cluster_id", Key, ForeignKey("cluster.id"), nullable=True),
    Column("hypervisor", Short, nullable=False),
    Column("url", String(1024), nullable=False, default=""),
    Column("address", Short, nullable=False, default=""),
    Column("version", Short, nullable=False, default=""),
    Column("capabilities", Name, nullable=False, default=""),
    Column("cpus", Integer, nullable=False, default=0),
    Column("cpu_mhz", Integer, nullable=False, default=0),
    Column("memory_bytes", BigInteger, nullable=False, default=0),
    Column("os_category_id", Key, nullable=True),
    Column("allocation_state", Short, nullable=False, default="Enabled"),
    Column("server", Name, nullable=True),
    instant("heard_at", nullable=True),
    instant("disconnected_at", nullable=True),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    Column("fleet_id", Key, nullable=True),
    Column("wanted", SmallInteger, nullable=True),
    instant("reconnect_asked_at", nullable=True),
    UniqueConstraint("zone_id", "name", "live"),
    Index("ix_host_live", "live", "id"),
    Index("ix_host_live_cluster", "live", "cluster_id", "id"),
    Index("ix_host_live_zone_kind", "live", "zone_id", "kind", "id"),
    Index("ix_host_fleet", "fleet_id", "id"),
    Index("ix_host_wanted", "wanted", "id"),
)
"""`kind` is Routing or SecondaryStorage; `server` names the management server that holds its connection.

`wanted` is 1 while a simulated host has neither an agent nor a fleet: whoever sets it to NULL first has the host.
`reconnect_asked_at` is set from the moment its line is to end until a new one is there.
"""

fleet = Table(
    "fleet",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("token_hash", String(64), nullable=False, unique=True),
    instant("token_expires_at"),
    Column("key_sha256", String(64), nullable=True),
    Column("server", Name, nullable=True),
    instant("disconnected_at", nullable=True),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("name", "live"),
)
"""An agent that makes and holds hosts of hypervisor Simulator, and no others. `server` holds its line."""

fleet_certificate = Table(
    "fleet_certificate",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("fleet_id", Key, ForeignKey("fleet.id"), nullable=False),
    instant("issued_at"),
    instant("expires_at"),
    instant("revoked_at", nullable=True),
    Index("ix_fleet_certificate_fleet", "fleet_id"),
)

host_watch = Table(
    "host_watch",
    metadata,
    Column("name", Short, primary_key=True),
    instant("since_at"),
    instant("until_at"),
)
"""One row: the time without a gap in which some server of the farm listened to hosts. Only such time is silence."""

host_tag = Table(
    "host_tag",
    metadata,
    Column("host_id", Key, ForeignKey("host.id"), primary_key=True),
    Column("tag", String(128), primary_key=True),
)

host_capacity = Table(
    "host_capacity",
    metadata,
    Column("host_id", Key, ForeignKey("host.id"), primary_key=True),
    Column("cpu_total_mhz", BigInteger, nullable=False, default=0),
    Column("cpu_used_mhz", BigInteger, nullable=False, default=0),
    Column("ram_total_mib", BigInteger, nullable=False, default=0),
    Column("ram_used_mib", BigInteger, nullable=False, default=0),
)
"""What guests may claim (CPU after over-provisioning) and what they have claimed: one guarded UPDATE claims."""

host_stats = Table(
    "host_stats",
    metadata,
    Column("host_id", Key, ForeignKey("host.id"), primary_key=True),
    Column("cpu_used", Float, nullable=False, default=0),
    Column("memory_used_bytes", BigInteger, nullable=False, default=0),
    Column("load_average", Float, nullable=False, default=0),
    Column("received_bytes", BigInteger, nullable=False, default=0),
    Column("sent_bytes", BigInteger, nullable=False, default=0),
    Column("storage_total_bytes", BigInteger, nullable=False, default=0),
    Column("storage_used_bytes", BigInteger, nullable=False, default=0),
    instant("taken_at"),
)
"""The last report of the host; `cpu_used` is a share from 0 to 1. Only secondary storage tells of storage."""

host_operation = Table(
    "host_operation",
    metadata,
    key(),
    Column("operation_id", String(80), nullable=False, unique=True),
    Column("host_id", Key, ForeignKey("host.id"), nullable=False),
    Column("queue", String(80), nullable=False),
    Column("kind", Short, nullable=False),
    Column("body", LongText, nullable=False),
    Column("job_id", Key, nullable=True),
    Column("pending", SmallInteger, nullable=True, default=1),
    Column("percent", SmallInteger, nullable=False, default=0),
    Column("progress", Name, nullable=False, default=""),
    Column("result", Text, nullable=True),
    Column("refusal", Text, nullable=True),
    instant("created_at"),
    instant("deadline_at", nullable=True),
    instant("answered_at", nullable=True),
    Index("ix_host_operation_pending_host", "pending", "host_id", "id"),
)
"""The only way the server reaches a host. `pending` is 1 until answered, then NULL. Bodies and answers are JSON."""

host_certificate = Table(
    "host_certificate",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("host_id", Key, ForeignKey("host.id"), primary_key=True),
    instant("issued_at"),
    instant("expires_at"),
    instant("revoked_at", nullable=True),
    Index("ix_host_certificate_host", "host_id"),
)
"""A certificate names every host of its agent: one row for each."""

enrolment_token = Table(
    "enrolment_token",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("host_id", Key, ForeignKey("host.id"), nullable=False),
    instant("created_at"),
    instant("expires_at"),
    instant("used_at", nullable=True),
    Column("key_sha256", String(64), nullable=True),
)
"""SHA-256 of a one-time secret with which a host's agent asks for its certificate, and of the key it was used for."""

authority = Table(
    "authority",
    metadata,
    Column("name", Short, primary_key=True),
    Column("certificate_pem", Text, nullable=False),
    Column("key_pem", Text, nullable=False),
    instant("created_at"),
)
"""The cloud's own certificate authority ("ca"), one row, made by the first server."""

storage_pool = Table(
    "storage_pool",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("kind", Short, nullable=False),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("pod_id", Key, ForeignKey("pod.id"), nullable=True),
    Column("cluster_id", Key, ForeignKey("cluster.id"), nullable=True),
    Column("server", Name, nullable=False, default=""),
    Column("path", String(1024), nullable=False),
    Column("state", Short, nullable=False),
    Column("capacity_bytes", BigInteger, nullable=False, default=0),
    Column("available_bytes", BigInteger, nullable=False, default=0),
    Column("allocatable_bytes", BigInteger, nullable=False, default=0),
    Column("allocated_bytes", BigInteger, nullable=False, default=0),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("cluster_id", "name", "live"),
    Index("ix_storage_pool_live_cluster", "live", "cluster_id", "id"),
)
"""`allocatable_bytes` is the capacity after over-provisioning; `allocated_bytes` what volumes have claimed of it."""

storage_pool_tag = Table(
    "storage_pool_tag",
    metadata,
    Column("pool_id", Key, ForeignKey("storage_pool.id"), primary_key=True),
    Column("tag", String(128), primary_key=True),
)

storage_pool_host = Table(
    "storage_pool_host",
    metadata,
    Column("pool_id", Key, ForeignKey("storage_pool.id"), primary_key=True),
    Column("host_id", Key, ForeignKey("host.id"), primary_key=True),
    flag("attached"),
)
