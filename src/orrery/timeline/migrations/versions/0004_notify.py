"""Who is told of what, and where it is sent: channels, what people wish, and what is to be delivered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the tables of :mod:`orrery.notify`; what happened before is told to nobody."""
    op.create_table(
        "notify_channels",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("medium", sa.String(8), nullable=False),
        sa.Column("kinds", sa.Text, nullable=False),
        sa.Column("place", sa.String(300), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("private", sa.Boolean, nullable=False),
        sa.Column("since", sa.String(27), nullable=False),
        sa.Column("by", sa.String(256), nullable=False),
        sa.Column("after", sa.BigInteger, nullable=False),
        sa.Column("dead", sa.String(27), nullable=False),
    )
    op.create_table(
        "notify_wishes",
        sa.Column("account", sa.String(64), primary_key=True),
        sa.Column("wish", sa.String(8), nullable=False),
        sa.Column("address", sa.String(320), nullable=False),
    )
    op.create_table(
        "notify_deliveries",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("target", sa.String(160), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.Float, nullable=False),
        sa.Column("tried", sa.Float, nullable=False),
        sa.Column("ended", sa.Float, nullable=False),
        sa.Column("said", sa.String(300), nullable=False),
    )
    op.create_index("notify_deliveries_due", "notify_deliveries", ["state", "due"])
    op.create_index("notify_deliveries_of", "notify_deliveries", ["target", "seq"])
    op.create_table(
        "notify_cursor",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO notify_cursor (name, seq) SELECT 'timeline', COALESCE(MAX(seq), 0) FROM events")
    op.create_table(
        "source_remotes",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("branch", sa.String(200), nullable=False),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("private", sa.Boolean, nullable=False),
        sa.Column("since", sa.String(27), nullable=False),
        sa.Column("by", sa.String(256), nullable=False),
    )
