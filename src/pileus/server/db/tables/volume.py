"""Volumes."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, SmallInteger, Table

from pileus.server.db.tables.column import Key, Name, Short, instant, key, live, metadata, uuid_column

volume = Table(
    "volume",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("kind", Short, nullable=False),
    Column("state", Short, nullable=False),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("vm_id", Key, ForeignKey("vm.id"), nullable=True),
    Column("device_id", Integer, nullable=True),
    Column("pool_id", Key, ForeignKey("storage_pool.id"), nullable=True),
    Column("path", Name, nullable=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("template_id", Key, ForeignKey("template.id"), nullable=True),
    Column("service_offering_id", Key, ForeignKey("service_offering.id"), nullable=True),
    Column("disk_offering_id", Key, ForeignKey("disk_offering.id"), nullable=True),
    Column("job_id", Key, nullable=True),
    Column("host_id", Key, nullable=True),
    instant("attached_at", nullable=True),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    Column("is_system", SmallInteger, nullable=False, default=0, server_default="0"),
    Index("ix_volume_live", "live", "is_system", "id"),
    Index("ix_volume_live_domain", "live", "is_system", "domain_id", "id"),
    Index("ix_volume_live_zone", "live", "is_system", "zone_id", "id"),
    Index("ix_volume_live_account", "live", "account_id", "id"),
    Index("ix_volume_live_vm", "live", "vm_id"),
    Index("ix_volume_live_pool", "live", "pool_id"),
)
"""`path` is the file name in the pool, chosen before the file is made; size is virtual. `job_id` is the job that makes
or made the file, through `host_id`: its undo deletes what this job made and nothing older. `is_system`: it is a disk of
a system VM, which no list of volumes shows."""
