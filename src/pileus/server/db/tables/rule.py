"""What a network's router does at its public addresses, beside port forwarding: openings, static NAT, balancers."""

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from pileus.server.db.tables.column import Key, Name, Short, instant, key, live, metadata, uuid_column


def _at_an_address() -> tuple[Column[int], ...]:
    """To whom a rule belongs, and where it is."""
    return (
        Column("public_ip_id", Key, ForeignKey("public_ip.id"), nullable=False),
        Column("network_id", Key, ForeignKey("network.id"), nullable=False),
        Column("account_id", Key, ForeignKey("account.id"), nullable=False),
        Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    )


firewall_rule = Table(
    "firewall_rule",
    metadata,
    key(),
    uuid_column(),
    *_at_an_address(),
    Column("protocol", String(8), nullable=False),
    Column("start_port", Integer, nullable=True),
    Column("end_port", Integer, nullable=True),
    Column("icmp_type", Integer, nullable=True),
    Column("icmp_code", Integer, nullable=True),
    Column("cidrs", Text, nullable=False),
    Column("opener_kind", Short, nullable=True),
    Column("opener_id", Key, nullable=True),
    Column("state", Short, nullable=False),
    live(),
    instant("created_at"),
    Index("ix_firewall_rule_live_network", "live", "network_id"),
    Index("ix_firewall_rule_live_ip", "live", "public_ip_id"),
    Index("ix_firewall_rule_live_account", "live", "account_id", "id"),
    Index("ix_firewall_rule_live_opener", "live", "opener_kind", "opener_id"),
)
"""Who may open new connections to an address. `cidrs` are separated by commas. Ports are NULL for icmp, whose type and
code are NULL for any. A rule that came with another one (`opener_kind`, `opener_id`) goes with it."""

ip_forwarding_rule = Table(
    "ip_forwarding_rule",
    metadata,
    key(),
    uuid_column(),
    *_at_an_address(),
    Column("vm_id", Key, ForeignKey("vm.id"), nullable=False),
    Column("protocol", String(8), nullable=False),
    Column("start_port", Integer, nullable=False),
    Column("end_port", Integer, nullable=False),
    Column("state", Short, nullable=False),
    live(),
    instant("created_at"),
    Index("ix_ip_forwarding_rule_live_network", "live", "network_id"),
    Index("ix_ip_forwarding_rule_live_ip", "live", "public_ip_id"),
    Index("ix_ip_forwarding_rule_live_vm", "live", "vm_id"),
)
"""Ports of an address that belongs to one guest whole (`public_ip.is_static_nat`)."""

load_balancer_rule = Table(
    "load_balancer_rule",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("description", Text, nullable=True),
    *_at_an_address(),
    Column("public_port", Integer, nullable=False),
    Column("private_port", Integer, nullable=False),
    Column("algorithm", Short, nullable=False),
    Column("state", Short, nullable=False),
    live(),
    instant("created_at"),
    UniqueConstraint("public_ip_id", "name", "live"),
    Index("ix_load_balancer_rule_live_network", "live", "network_id"),
    Index("ix_load_balancer_rule_live_ip", "live", "public_ip_id"),
    Index("ix_load_balancer_rule_live_account", "live", "account_id", "id"),
)

load_balancer_member = Table(
    "load_balancer_member",
    metadata,
    key(),
    Column("rule_id", Key, ForeignKey("load_balancer_rule.id"), nullable=False),
    Column("vm_id", Key, ForeignKey("vm.id"), nullable=False),
    Column("state", Short, nullable=False),
    live(),
    instant("created_at"),
    UniqueConstraint("rule_id", "vm_id", "live"),
    Index("ix_load_balancer_member_live_vm", "live", "vm_id"),
)
"""The guests among which a balancer shares out connections."""
