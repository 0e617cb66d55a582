"""Remote access of users to their networks."""

from sqlalchemy import Column, ForeignKey, Index, Table, UniqueConstraint

from pileus.server.db.tables.column import Key, Name, Short, instant, key, live, metadata, uuid_column

remote_access_vpn = Table(
    "remote_access_vpn",
    metadata,
    key(),
    uuid_column(),
    Column("public_ip_id", Key, ForeignKey("public_ip.id"), nullable=False),
    Column("network_id", Key, ForeignKey("network.id"), nullable=False),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("local_ip", Short, nullable=False),
    Column("first_ip", Short, nullable=False),
    Column("last_ip", Short, nullable=False),
    Column("preshared_key", Name, nullable=False),
    Column("state", Short, nullable=False),
    live(),
    instant("created_at"),
    UniqueConstraint("network_id", "live"),
    Index("ix_remote_access_vpn_live_ip", "live", "public_ip_id"),
    Index("ix_remote_access_vpn_live_account", "live", "account_id", "id"),
)
"""One for each network. Clients get addresses from `first_ip` to `last_ip`; `local_ip` is the router's end."""

vpn_user = Table(
    "vpn_user",
    metadata,
    key(),
    uuid_column(),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("username", Name, nullable=False),
    Column("password", Name, nullable=False),
    Column("state", Short, nullable=False),
    live(),
    instant("created_at"),
    UniqueConstraint("account_id", "username", "live"),
)
"""Who may come in by the VPNs of an account. The password is kept as it is: the protocol needs it in clear."""
