"""Service, disk and network offerings."""

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, Table, Text

from pileus.server.db.tables.column import Key, Name, Short, flag, instant, key, live, metadata, uuid_column

service_offering = Table(
    "service_offering",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("display_text", Text, nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("cpu_mhz", Integer, nullable=False),
    Column("ram_mib", Integer, nullable=False),
    Column("rate_mbps", Integer, nullable=True),
    flag("offer_ha"),
    flag("limit_cpu"),
    flag("local_storage"),
    Column("tags", Name, nullable=True),
    Column("host_tag", Name, nullable=True),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=True),
    flag("is_system"),
    Column("system_vm_type", Short, nullable=True),
    flag("is_default"),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
)

disk_offering = Table(
    "disk_offering",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("display_text", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False, default=0),
    flag("customized"),
    Column("tags", Name, nullable=True),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=True),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
)

network_offering = Table(
    "network_offering",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False, unique=True),
    Column("display_text", Text, nullable=False),
    Column("traffic_type", Short, nullable=False),
    Column("guest_ip_type", Short, nullable=True),
    Column("availability", Short, nullable=False, default="Optional"),
    Column("rate_mbps", Integer, nullable=True),
    flag("is_default"),
    flag("is_system"),
    flag("specify_vlan"),
    flag("is_shared"),
    Column("services", Text, nullable=False, default=""),
    live(),
    instant("created_at"),
    Column("tags", Name, nullable=True),
    Column("max_connections", Integer, nullable=True),
    instant("removed_at", nullable=True),
)
"""`services` is a comma-separated list of what the network's element provides."""
