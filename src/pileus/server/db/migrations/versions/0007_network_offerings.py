"""Tags, connection limits and removal of network offerings.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.add_column("network_offering", sa.Column("tags", sa.String(length=255), nullable=True))
    op.add_column("network_offering", sa.Column("max_connections", sa.Integer(), nullable=True))
    op.add_column("network_offering", sa.Column("removed_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Bring the tables to the revision before."""
    for column in ("removed_at", "max_connections", "tags"):
        op.drop_column("network_offering", column)
