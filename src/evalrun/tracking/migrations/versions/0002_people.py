"""What people add to a sweep: the latest note, and whether it is archived."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the columns. Only the folders know what stands in them: whoever asks next enters them all anew."""
    op.add_column("sweep", sa.Column("archived", sa.Integer(), server_default="0", nullable=False))
    op.add_column("sweep", sa.Column("note", TEXT, nullable=True))
    op.execute("DELETE FROM sweep")


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("sweep", "note")
    op.drop_column("sweep", "archived")
