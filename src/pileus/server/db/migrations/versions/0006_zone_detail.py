"""Details of zones.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.create_table(
        "zone_detail",
        sa.Column("zone_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["zone_id"], ["zone.id"], name=op.f("fk_zone_detail_zone_id")),
        sa.PrimaryKeyConstraint("zone_id", "name", name=op.f("pk_zone_detail")),
    )


def downgrade() -> None:
    """Bring the tables to the revision before."""
    op.drop_table("zone_detail")
