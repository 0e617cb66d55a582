"""Firewall rules, static NAT, load balancers and remote access.

Revision 0008, after 0007.
"""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

MORE = ",firewall,static-nat,load-balancing"
"""What networks that forward ports do from now on."""


def upgrade() -> None:
    """Bring the tables to this revision."""

    op.create_table(
        "vpn_user",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=40), nullable=False),
        sa.Column("account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("domain_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("password", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("live", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_vpn_user_account_id")),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name=op.f("fk_vpn_user_domain_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vpn_user")),
        sa.UniqueConstraint("account_id", "username", "live", name=op.f("uq_vpn_user_account_id_username_live")),
        sa.UniqueConstraint("uuid", name=op.f("uq_vpn_user_uuid")),
    )

    op.create_table(
        "firewall_rule",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=40), nullable=False),
        sa.Column("public_ip_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("network_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("domain_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("protocol", sa.String(length=8), nullable=False),
        sa.Column("start_port", sa.Integer(), nullable=True),
        sa.Column("end_port", sa.Integer(), nullable=True),
        sa.Column("icmp_type", sa.Integer(), nullable=True),
        sa.Column("icmp_code", sa.Integer(), nullable=True),
        sa.Column("cidrs", sa.Text(), nullable=False),
        sa.Column("opener_kind", sa.String(length=64), nullable=True),
        sa.Column("opener_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("live", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_firewall_rule_account_id")),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name=op.f("fk_firewall_rule_domain_id")),
        sa.ForeignKeyConstraint(["network_id"], ["network.id"], name=op.f("fk_firewall_rule_network_id")),
        sa.ForeignKeyConstraint(["public_ip_id"], ["public_ip.id"], name=op.f("fk_firewall_rule_public_ip_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_firewall_rule")),
        sa.UniqueConstraint("uuid", name=op.f("uq_firewall_rule_uuid")),
    )
    with op.batch_alter_table("firewall_rule", schema=None) as batch_op:
        batch_op.create_index("ix_firewall_rule_live_account", ["live", "account_id", "id"], unique=False)
        batch_op.create_index("ix_firewall_rule_live_ip", ["live", "public_ip_id"], unique=False)
        batch_op.create_index("ix_firewall_rule_live_network", ["live", "network_id"], unique=False)
        batch_op.create_index("ix_firewall_rule_live_opener", ["live", "opener_kind", "opener_id"], unique=False)

    op.create_table(
        "load_balancer_rule",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("public_ip_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("network_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("domain_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("public_port", sa.Integer(), nullable=False),
        sa.Column("private_port", sa.Integer(), nullable=False),
        sa.Column("algorithm", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("live", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_load_balancer_rule_account_id")),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name=op.f("fk_load_balancer_rule_domain_id")),
        sa.ForeignKeyConstraint(["network_id"], ["network.id"], name=op.f("fk_load_balancer_rule_network_id")),
        sa.ForeignKeyConstraint(["public_ip_id"], ["public_ip.id"], name=op.f("fk_load_balancer_rule_public_ip_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_load_balancer_rule")),
        sa.UniqueConstraint("public_ip_id", "name", "live", name=op.f("uq_load_balancer_rule_public_ip_id_name_live")),
        sa.UniqueConstraint("uuid", name=op.f("uq_load_balancer_rule_uuid")),
    )
    with op.batch_alter_table("load_balancer_rule", schema=None) as batch_op:
        batch_op.create_index("ix_load_balancer_rule_live_account", ["live", "account_id", "id"], unique=False)
        batch_op.create_index("ix_load_balancer_rule_live_ip", ["live", "public_ip_id"], unique=False)
        batch_op.create_index("ix_load_balancer_rule_live_network", ["live", "network_id"], unique=False)

    op.create_table(
        "remote_access_vpn",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=40), nullable=False),
        sa.Column("public_ip_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("network_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("domain_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("local_ip", sa.String(length=64), nullable=False),
        sa.Column("first_ip", sa.String(length=64), nullable=False),
        sa.Column("last_ip", sa.String(length=64), nullable=False),
        sa.Column("preshared_key", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("live", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_remote_access_vpn_account_id")),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name=op.f("fk_remote_access_vpn_domain_id")),
        sa.ForeignKeyConstraint(["network_id"], ["network.id"], name=op.f("fk_remote_access_vpn_network_id")),
        sa.ForeignKeyConstraint(["public_ip_id"], ["public_ip.id"], name=op.f("fk_remote_access_vpn_public_ip_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_remote_access_vpn")),
        sa.UniqueConstraint("network_id", "live", name=op.f("uq_remote_access_vpn_network_id_live")),
        sa.UniqueConstraint("uuid", name=op.f("uq_remote_access_vpn_uuid")),
    )
    with op.batch_alter_table("remote_access_vpn", schema=None) as batch_op:
        batch_op.create_index("ix_remote_access_vpn_live_account", ["live", "account_id", "id"], unique=False)
        batch_op.create_index("ix_remote_access_vpn_live_ip", ["live", "public_ip_id"], unique=False)

    op.create_table(
        "ip_forwarding_rule",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=40), nullable=False),
        sa.Column("public_ip_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("network_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("domain_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("vm_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("protocol", sa.String(length=8), nullable=False),
        sa.Column("start_port", sa.Integer(), nullable=False),
        sa.Column("end_port", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("live", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_ip_forwarding_rule_account_id")),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name=op.f("fk_ip_forwarding_rule_domain_id")),
        sa.ForeignKeyConstraint(["network_id"], ["network.id"], name=op.f("fk_ip_forwarding_rule_network_id")),
        sa.ForeignKeyConstraint(["public_ip_id"], ["public_ip.id"], name=op.f("fk_ip_forwarding_rule_public_ip_id")),
        sa.ForeignKeyConstraint(["vm_id"], ["vm.id"], name=op.f("fk_ip_forwarding_rule_vm_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ip_forwarding_rule")),
        sa.UniqueConstraint("uuid", name=op.f("uq_ip_forwarding_rule_uuid")),
    )
    with op.batch_alter_table("ip_forwarding_rule", schema=None) as batch_op:
        batch_op.create_index("ix_ip_forwarding_rule_live_ip", ["live", "public_ip_id"], unique=False)
        batch_op.create_index("ix_ip_forwarding_rule_live_network", ["live", "network_id"], unique=False)
        batch_op.create_index("ix_ip_forwarding_rule_live_vm", ["live", "vm_id"], unique=False)

    op.create_table(
        "load_balancer_member",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("rule_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("vm_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("live", sa.SmallInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rule_id"], ["load_balancer_rule.id"], name=op.f("fk_load_balancer_member_rule_id")),
        sa.ForeignKeyConstraint(["vm_id"], ["vm.id"], name=op.f("fk_load_balancer_member_vm_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_load_balancer_member")),
        sa.UniqueConstraint("rule_id", "vm_id", "live", name=op.f("uq_load_balancer_member_rule_id_vm_id_live")),
    )
    with op.batch_alter_table("load_balancer_member", schema=None) as batch_op:
        batch_op.create_index("ix_load_balancer_member_live_vm", ["live", "vm_id"], unique=False)
    offering = sa.table("network_offering", sa.column("services", sa.Text()))
    forwards = offering.c.services.like("%port-forwarding%")
    op.execute(offering.update().where(forwards).values(services=offering.c.services + MORE))
    _open_for_forwards()


def _open_for_forwards() -> None:
    """What forwards let in until now, they let in from now on."""
    same = ("public_ip_id", "network_id", "account_id", "domain_id", "protocol", "state", "live", "created_at")
    names = (*same, "public_start", "public_end", "id")
    forwards = sa.table("port_forwarding_rule", *(sa.column(name) for name in names))
    extra = ("uuid", "start_port", "end_port", "cidrs", "opener_kind", "opener_id")
    openings = sa.table("firewall_rule", *(sa.column(name) for name in (*same, *extra)))
    found = op.get_bind().execute(sa.select(forwards).where(forwards.c.live == 1)).mappings().all()
    rows = [
        {
            **{name: row[name] for name in same},
            "uuid": str(uuid.uuid4()),
            "start_port": row["public_start"],
            "end_port": row["public_end"],
            "cidrs": "0.0.0.0/0",
            "opener_kind": "FirewallRule",
            "opener_id": row["id"],
        }
        for row in found
    ]
    if rows:
        op.bulk_insert(openings, rows)


def downgrade() -> None:
    """Bring the tables to the revision before."""
    offering = sa.table("network_offering", sa.column("services", sa.Text()))
    op.execute(offering.update().values(services=sa.func.replace(offering.c.services, MORE, "")))
    with op.batch_alter_table("load_balancer_member", schema=None) as batch_op:
        batch_op.drop_index("ix_load_balancer_member_live_vm")
    op.drop_table("load_balancer_member")
    with op.batch_alter_table("ip_forwarding_rule", schema=None) as batch_op:
        batch_op.drop_index("ix_ip_forwarding_rule_live_vm")
        batch_op.drop_index("ix_ip_forwarding_rule_live_network")
        batch_op.drop_index("ix_ip_forwarding_rule_live_ip")
    op.drop_table("ip_forwarding_rule")
    with op.batch_alter_table("remote_access_vpn", schema=None) as batch_op:
        batch_op.drop_index("ix_remote_access_vpn_live_ip")
        batch_op.drop_index("ix_remote_access_vpn_live_account")
    op.drop_table("remote_access_vpn")
    with op.batch_alter_table("load_balancer_rule", schema=None) as batch_op:
        batch_op.drop_index("ix_load_balancer_rule_live_network")
        batch_op.drop_index("ix_load_balancer_rule_live_ip")
        batch_op.drop_index("ix_load_balancer_rule_live_account")
    op.drop_table("load_balancer_rule")
    with op.batch_alter_table("firewall_rule", schema=None) as batch_op:
        batch_op.drop_index("ix_firewall_rule_live_opener")
        batch_op.drop_index("ix_firewall_rule_live_network")
        batch_op.drop_index("ix_firewall_rule_live_ip")
        batch_op.drop_index("ix_firewall_rule_live_account")
    op.drop_table("firewall_rule")
    op.drop_table("vpn_user")
