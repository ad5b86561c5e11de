"""Who signs in elsewhere, the roles that their groups bring, and how often a password was wrong."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables of :mod:`orrery.access.identities` and :mod:`orrery.access.patience`."""
    op.create_table(
        "access_identities",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("issuer", sa.String(400), nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("since", sa.String(27), nullable=False),
    )
    op.create_index("access_identities_of", "access_identities", ["account"])
    op.create_table(
        "access_group_roles",
        sa.Column("account", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(80), primary_key=True),
        sa.Column("place", sa.String(80), primary_key=True),
        sa.Column("until", sa.String(27), nullable=False),
    )
    op.create_table(
        "access_patience",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("wrong", sa.Integer, nullable=False),
        sa.Column("until", sa.String(27), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
    )
