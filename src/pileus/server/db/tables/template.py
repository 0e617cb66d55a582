"""Templates, their copies, and the operating systems they hold."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from pileus.server.db.tables.column import Key, Name, Short, flag, instant, key, live, metadata, uuid_column

os_category = Table("os_category", metadata, key(), uuid_column(), Column("name", Name, nullable=False, unique=True))

os_type = Table(
    "os_type",
    metadata,
    key(),
    uuid_column(),
    Column("category_id", Key, ForeignKey("os_category.id"), nullable=False),
    Column("name", Name, nullable=False, unique=True),
)

template = Table(
    "template",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("display_text", Text, nullable=False),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("format", Short, nullable=False),
    Column("hypervisor", Short, nullable=False),
    Column("os_type_id", Key, ForeignKey("os_type.id"), nullable=False),
    Column("url", String(2048), nullable=True),
    Column("checksum", String(128), nullable=True),
    Column("bits", SmallInteger, nullable=False, default=64),
    Column("type", Short, nullable=False, default="USER"),
    flag("is_public"),
    flag("is_featured"),
    flag("is_extractable"),
    flag("is_bootable", default=True),
    flag("requires_hvm", default=True),
    flag("password_enabled"),
    flag("cross_zones"),
    Column("tag", Name, nullable=True),
    Column("details", Text, nullable=True),
    Column("source_template_id", Key, nullable=True),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    Index("ix_template_live_account", "live", "account_id", "id"),
    Index("ix_template_live_public", "live", "is_public", "id"),
)

template_copy = Table(
    "template_copy",
    metadata,
    key(),
    Column("template_id", Key, ForeignKey("template.id"), nullable=False),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("host_id", Key, ForeignKey("host.id"), nullable=True),
    Column("state", Short, nullable=False),
    Column("percent", SmallInteger, nullable=False, default=0),
    Column("status", Text, nullable=False),
    Column("name", Name, nullable=False),
    Column("url", String(2048), nullable=True),
    Column("sha256", String(64), nullable=True),
    Column("virtual_bytes", BigInteger, nullable=False, default=0),
    Column("physical_bytes", BigInteger, nullable=False, default=0),
    Column("operation_id", String(80), nullable=True),
    Column("attempts", Integer, nullable=False, default=0),
    instant("retry_at", nullable=True),
    instant("created_at"),
    UniqueConstraint("template_id", "zone_id"),
)
"""The image in one zone's secondary storage. `status` is the sentence shown in listTemplates; while it is downloading,
the progress stands in the row of host_operation that `operation_id` names. A Failed copy with `retry_at` is fetched
again from then on."""

template_on_pool = Table(
    "template_on_pool",
    metadata,
    Column("template_id", Key, ForeignKey("template.id"), primary_key=True),
    Column("pool_id", Key, ForeignKey("storage_pool.id"), primary_key=True),
    Column("state", Short, nullable=False),
    Column("name", Name, nullable=False),
    Column("virtual_bytes", BigInteger, nullable=False, default=0),
    Column("physical_bytes", BigInteger, nullable=False, default=0),
    Column("job_id", Key, nullable=True),
    Column("host_id", Key, nullable=True),
    instant("used_at"),
)
"""The image on one primary pool, fetched on first use; volumes are its clones. `job_id` is the job that fetches or
fetched it, through `host_id`: what removes it later goes through the same queue of the same host."""

template_permission = Table(
    "template_permission",
    metadata,
    Column("template_id", Key, ForeignKey("template.id"), primary_key=True),
    Column("account_id", Key, ForeignKey("account.id"), primary_key=True),
)

template_zone = Table(
    "template_zone",
    metadata,
    Column("template_id", Key, ForeignKey("template.id"), primary_key=True),
    Column("zone_id", Key, ForeignKey("zone.id"), primary_key=True),
    Column("order_number", Integer, nullable=False, default=0),
)
"""Zones a template was registered for."""
