"""The tables; made by ``orrery/timeline/migrations``. Addresses and keys in them are sealed."""

from __future__ import annotations

import sqlalchemy as sa


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(one) for one in columns))


channels = _table(
    "notify_channels", "project", "name", "medium", "kinds", "place", "url", "secret", "private", "since", "by",
    "after", "dead",
)  # fmt: skip
wishes = _table("notify_wishes", "account", "wish", "address")
deliveries = _table(
    "notify_deliveries", "id", "target", "model", "seq", "body", "state", "attempts", "due", "tried", "ended", "said"
)
cursor = _table("notify_cursor", "name", "seq")
