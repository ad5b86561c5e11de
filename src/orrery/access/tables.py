"""The tables; made by ``orrery/timeline/migrations``. Instants are text, empty where something has not happened."""

from __future__ import annotations

import sqlalchemy as sa

accounts = sa.table(
    "access_accounts",
    *(sa.column(name, sa.String) for name in ("name", "kind", "owner", "password", "since", "disabled")),
)
links = sa.table("access_links", sa.column("link", sa.String), sa.column("account", sa.String))
grants = sa.table("access_grants", *(sa.column(name, sa.String) for name in ("account", "role", "place")))
teams = sa.table("access_teams", sa.column("project", sa.String), sa.column("team", sa.String))
keys = sa.table(
    "access_keys",
    *(
        sa.column(name, sa.String)
        for name in (
            "id",
            "kind",
            "account",
            "hash",
            "label",
            "scopes",
            "project",
            "since",
            "until",
            "seen",
            "revoked",
        )
    ),
)
identities = sa.table(
    "access_identities", *(sa.column(name, sa.String) for name in ("id", "issuer", "account", "since"))
)
group_roles = sa.table(
    "access_group_roles", *(sa.column(name, sa.String) for name in ("account", "role", "place", "until"))
)
patience = sa.table(
    "access_patience",
    sa.column("wrong", sa.Integer),
    *(sa.column(name, sa.String) for name in ("name", "until", "at")),
)
factors = sa.table(
    "access_factors",
    sa.column("step", sa.BigInteger),
    *(sa.column(name, sa.String) for name in ("account", "secret", "since", "confirmed")),
)
recovery = sa.table("access_recovery", sa.column("hash", sa.String), sa.column("account", sa.String))
