"""Who may do what: accounts, the names that belong to them, their roles, teams, and their keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables of :mod:`orrery.access`."""
    op.create_table(
        "access_accounts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("password", sa.Text, nullable=False),
        sa.Column("since", sa.String(27), nullable=False),
        sa.Column("disabled", sa.String(27), nullable=False),
    )
    op.create_table(
        "access_links",
        sa.Column("link", sa.String(320), primary_key=True),
        sa.Column("account", sa.String(64), nullable=False),
    )
    op.create_table(
        "access_grants",
        sa.Column("account", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(80), primary_key=True),
        sa.Column("place", sa.String(80), primary_key=True),
    )
    op.create_table(
        "access_teams",
        sa.Column("project", sa.String(80), primary_key=True),
        sa.Column("team", sa.String(64), nullable=False),
    )
    op.create_table(
        "access_keys",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("scopes", sa.String(200), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("since", sa.String(27), nullable=False),
        sa.Column("until", sa.String(27), nullable=False),
        sa.Column("seen", sa.String(27), nullable=False),
        sa.Column("revoked", sa.String(27), nullable=False),
    )
    op.create_index("access_keys_of", "access_keys", ["account", "kind"])
