"""The log of changed rows.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables to this revision."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "row_change",
        sa.Column("id", key, autoincrement=True, nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("row_id", key, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_row_change")),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Bring the tables to the revision before."""
    op.drop_table("row_change")
