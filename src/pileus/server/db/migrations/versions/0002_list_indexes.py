"""Indexes in the order in which lists are shown.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INDEXES = {
    "vm": {
        "ix_vm_live": ["live", "kind", "id"],
        "ix_vm_live_domain": ["live", "kind", "domain_id", "id"],
        "ix_vm_live_state": ["live", "kind", "state", "id"],
        "ix_vm_roll": ["roll"],
    },
    "volume": {
        "ix_volume_live": ["live", "is_system", "id"],
        "ix_volume_live_domain": ["live", "is_system", "domain_id", "id"],
        "ix_volume_live_zone": ["live", "is_system", "zone_id", "id"],
    },
    "network": {
        "ix_network_live": ["live", "is_system", "id"],
        "ix_network_live_domain": ["live", "domain_id", "id"],
    },
    "domain": {"ix_domain_live": ["live", "id"]},
    "account": {"ix_account_live": ["live", "system", "id"]},
    "host": {"ix_host_live": ["live", "id"]},
}


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.add_column("vm", sa.Column("roll", sa.BigInteger(), nullable=True))
    op.add_column("volume", sa.Column("is_system", sa.SmallInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE volume SET is_system = 1 WHERE vm_id IN (SELECT id FROM vm WHERE kind <> 'User')")
    for table, indexes in _INDEXES.items():
        for name, columns in indexes.items():
            op.create_index(name, table, columns)


def downgrade() -> None:
    """Give back the tables of the revision before."""
    for table, indexes in _INDEXES.items():
        for name in indexes:
            op.drop_index(name, table)
    op.drop_column("volume", "is_system")
    op.drop_column("vm", "roll")
