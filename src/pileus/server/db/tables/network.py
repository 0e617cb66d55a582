"""Networks, NICs, public addresses and rules."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

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

network = Table(
    "network",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("display_text", Text, nullable=False),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("offering_id", Key, ForeignKey("network_offering.id"), nullable=False),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("state", Short, nullable=False),
    Column("traffic_type", Short, nullable=False),
    Column("guest_ip_type", Short, nullable=True),
    Column("isolation", Short, nullable=False),
    Column("vnet", Integer, nullable=True),
    Column("cidr", Short, nullable=True),
    Column("gateway", Short, nullable=True),
    Column("dns1", Short, nullable=True),
    Column("dns2", Short, nullable=True),
    Column("network_domain", Name, nullable=True),
    Column("on_demand_key", String(80), nullable=True, unique=True),
    flag("is_shared"),
    flag("is_system"),
    flag("is_default"),
    flag("specified_vlan"),
    Column("tags", Name, nullable=True),
    Column("set_up_by", Key, nullable=True),
    live(),
    instant("created_at"),
    instant("idle_at", nullable=True),
    instant("removed_at", nullable=True),
    Index("ix_network_live", "live", "is_system", "id"),
    Index("ix_network_live_domain", "live", "domain_id", "id"),
    Index("ix_network_live_account", "live", "account_id", "id"),
    Index("ix_network_live_zone", "live", "zone_id", "id"),
    Index("ix_network_live_shared", "live", "is_shared", "domain_id"),
)
"""`on_demand_key` ("zone:account") makes an account's own virtual network of a zone unique; NULL once removed.
`set_up_by` is the job that implemented it last: only that job's undo may take it down again."""

network_config = Table(
    "network_config",
    metadata,
    Column("network_id", Key, ForeignKey("network.id"), primary_key=True),
    Column("desired", BigInteger, nullable=False, default=0),
    Column("applied", BigInteger, nullable=False, default=0),
    Column("pushing", BigInteger, nullable=False, default=0),
    Column("refused", BigInteger, nullable=False, default=0),
    Column("applied_fingerprint", String(64), nullable=True),
    Column("router_id", Key, nullable=True),
    flag("halted"),
    Column("failure", Text, nullable=True),
    Index("ix_network_config_desired", "desired", "applied"),
)
"""Generations of a network's declared config: `desired` grows with every change in the change's own transaction;
`pushing` is the one under way, 0 when none; `applied` is what the router reported, `refused` the last
one it rejected for good (never pushed again). `halted` says that an administrator stopped the router: it is not
started again until somebody needs it."""

nic = Table(
    "nic",
    metadata,
    key(),
    uuid_column(),
    Column("vm_id", Key, ForeignKey("vm.id"), nullable=False),
    Column("network_id", Key, ForeignKey("network.id"), nullable=False),
    Column("mac", String(17), nullable=True),
    Column("ip", Short, nullable=True),
    Column("netmask", Short, nullable=True),
    Column("gateway", Short, nullable=True),
    Column("device_id", Integer, nullable=False),
    Column("traffic_type", Short, nullable=False, default="Guest"),
    flag("is_default", default=True),
    Column("generation", BigInteger, nullable=False, default=0),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("network_id", "ip", "live"),
    UniqueConstraint("mac", "live"),
    Index("ix_nic_live_vm", "live", "vm_id"),
    Index("ix_nic_live_network", "live", "network_id"),
)
"""The MAC is derived from the row's id, so it is unique by construction (see domain.mac). `generation` is the first of
the network's config that knows this card and what is served to it."""

vlan_ip_range = Table(
    "vlan_ip_range",
    metadata,
    key(),
    uuid_column(),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("pod_id", Key, ForeignKey("pod.id"), nullable=True),
    Column("network_id", Key, ForeignKey("network.id"), nullable=True),
    Column("account_id", Key, ForeignKey("account.id"), nullable=True),
    Column("vlan", Short, nullable=False, default="untagged"),
    Column("gateway", Short, nullable=False),
    Column("netmask", Short, nullable=False),
    Column("start_ip", Short, nullable=False),
    Column("end_ip", Short, nullable=False),
    flag("for_virtual_network", default=True),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    Index("ix_vlan_ip_range_live_zone", "live", "zone_id"),
)

public_ip = Table(
    "public_ip",
    metadata,
    key(),
    uuid_column(),
    Column("address", Short, nullable=False),
    Column("address_number", BigInteger, nullable=False),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("range_id", Key, ForeignKey("vlan_ip_range.id"), nullable=False),
    Column("state", Short, nullable=False, default="Free"),
    Column("account_id", Key, ForeignKey("account.id"), nullable=True),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=True),
    Column("network_id", Key, ForeignKey("network.id"), nullable=True),
    Column("vm_id", Key, nullable=True),
    flag("is_source_nat"),
    flag("is_static_nat"),
    Column("job_id", Key, nullable=True),
    instant("allocated_at", nullable=True),
    live(),
    UniqueConstraint("zone_id", "address", "live"),
    Index("ix_public_ip_state", "live", "zone_id", "state", "address_number"),
    Index("ix_public_ip_network", "network_id"),
    Index("ix_public_ip_account", "live", "account_id"),
)
"""One row per address of every range: claiming one is a compare-and-set of its state. `job_id` is the job that
claimed it, if one did: only that job's undo may free it."""

port_forwarding_rule = Table(
    "port_forwarding_rule",
    metadata,
    key(),
    uuid_column(),
    Column("public_ip_id", Key, ForeignKey("public_ip.id"), nullable=False),
    Column("network_id", Key, ForeignKey("network.id"), nullable=False),
    Column("vm_id", Key, ForeignKey("vm.id"), nullable=False),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("protocol", String(8), nullable=False),
    Column("public_start", Integer, nullable=False),
    Column("public_end", Integer, nullable=False),
    Column("private_start", Integer, nullable=False),
    Column("private_end", Integer, nullable=False),
    Column("state", Short, nullable=False),
    live(),
    instant("created_at"),
    Index("ix_port_forwarding_live_network", "live", "network_id"),
    Index("ix_port_forwarding_live_ip", "live", "public_ip_id"),
)

pod_ip = Table(
    "pod_ip",
    metadata,
    key(),
    Column("pod_id", Key, ForeignKey("pod.id"), nullable=False),
    Column("address", Short, nullable=False),
    Column("vm_id", Key, nullable=True),
    UniqueConstraint("pod_id", "address"),
)
"""Private addresses of a pod for system VMs. Taken while `vm_id` is set."""

guest_data = Table(
    "guest_data",
    metadata,
    Column("vm_id", Key, ForeignKey("vm.id"), primary_key=True),
    Column("user_data", LongText, nullable=True),
    Column("password", Name, nullable=True),
    Column("password_id", String(40), nullable=True),
    Column("public_key", Text, nullable=True),
)
"""What the router serves to one guest. The password is cleared once the guest had time to fetch it."""
