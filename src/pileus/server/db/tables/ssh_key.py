"""SSH keys that guests let in, and the custom certificates of the cloud."""

from sqlalchemy import Column, ForeignKey, Index, String, Table, Text, UniqueConstraint

from pileus.server.db.tables.column import Key, Name, instant, key, live, metadata, uuid_column

ssh_key_pair = Table(
    "ssh_key_pair",
    metadata,
    key(),
    uuid_column(),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("account_id", "name", "live"),
    Index("ix_ssh_key_pair_live_account", "live", "account_id", "id"),
)
"""Public halves only: a private key is told once, when it is made, and never stored. The fingerprint is the MD5 of the
public key in hex with colons."""

custom_certificate = Table(
    "custom_certificate",
    metadata,
    key(),
    Column("name", Name, nullable=False, unique=True),
    Column("position", Key, nullable=False),
    Column("domain_suffix", Name, nullable=False),
    Column("certificate_pem", Text, nullable=False),
    Column("key_pem", Text, nullable=True),
    instant("changed_at"),
)
"""Certificates for what the cloud serves to browsers: the server's own with its key, and those above it, in order of
`position`."""
