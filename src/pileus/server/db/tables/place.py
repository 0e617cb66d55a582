"""Where things stand: zones, pods, clusters, and the VLANs of a zone."""

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, UniqueConstraint

from pileus.server.db.tables.column import Key, Name, Short, flag, instant, key, live, metadata, uuid_column

zone = Table(
    "zone",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("dns1", Short, nullable=False),
    Column("dns2", Short, nullable=True),
    Column("internal_dns1", Short, nullable=False),
    Column("internal_dns2", Short, nullable=True),
    Column("guest_cidr", Short, nullable=True),
    Column("vlan_range", Name, nullable=True),
    Column("network_type", Short, nullable=False),
    Column("isolation", Short, nullable=False, default="vxlan"),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=True),
    Column("network_domain", Name, nullable=True),
    flag("security_groups"),
    Column("allocation_state", Short, nullable=False, default="Enabled"),
    Column("token", String(64), nullable=False),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("name", "live"),
)

pod = Table(
    "pod",
    metadata,
    key(),
    uuid_column(),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("gateway", Short, nullable=False),
    Column("netmask", Short, nullable=False),
    Column("start_ip", Short, nullable=False),
    Column("end_ip", Short, nullable=False),
    Column("allocation_state", Short, nullable=False, default="Enabled"),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("zone_id", "name", "live"),
)

cluster = Table(
    "cluster",
    metadata,
    key(),
    uuid_column(),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("pod_id", Key, ForeignKey("pod.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("hypervisor", Short, nullable=False),
    Column("cluster_type", Short, nullable=False, default="CloudManaged"),
    Column("allocation_state", Short, nullable=False, default="Enabled"),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("pod_id", "name", "live"),
    Index("ix_cluster_live_zone", "live", "zone_id"),
)

zone_vnet = Table(
    "zone_vnet",
    metadata,
    Column("zone_id", Key, ForeignKey("zone.id"), primary_key=True),
    Column("vnet", Integer, primary_key=True, autoincrement=False),
    Column("network_id", Key, nullable=True, unique=True),
    Index("ix_zone_vnet_free", "zone_id", "network_id", "vnet"),
)
"""Every VLAN id or VNI of a zone's range, and the guest network that holds it."""
