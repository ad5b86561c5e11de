"""Second factors of accounts, and the codes for who has lost theirs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables of :mod:`orrery.access.factors`."""
    op.create_table(
        "access_factors",
        sa.Column("account", sa.String(64), primary_key=True),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("since", sa.String(27), nullable=False),
        sa.Column("confirmed", sa.String(27), nullable=False),
    )
    op.create_table(
        "access_recovery",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(64), nullable=False),
    )
    op.create_index("access_recovery_of", "access_recovery", ["account"])
