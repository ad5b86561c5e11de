"""More patience with every wrong password or code: the count is in the database, so that a restart forgets nothing."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from orrery.access import tables
from orrery.errors import TooOften
from orrery.timeline.store import Timeline
from orrery.types import format_instant, parse_instant

FREE = 5
"""Wrong ones in a row before there is a wait."""
LONGEST_WAIT = 900.0
FORGOTTEN = timedelta(days=1)
"""After the last wrong one of a name."""
REMEMBERED = 10_000


def _now() -> datetime:
    return datetime.now(UTC)


class Patience:
    """Counts wrong passwords and codes of a name, whether there is such an account or not; may be shared by threads.

    After :data:`FREE` in a row each one doubles the time in which not even the right one is looked at.

    Parameters
    ----------
    timeline : in whose database they are counted.
    key : makes of a name what is stored of it: people type passwords into that field, too.
    now : tells the time.
    """

    def __init__(self, timeline: Timeline, key: str, now: Callable[[], datetime] = _now) -> None:
        self._timeline, self._key, self._now = timeline, key.encode(), now

    def check(self, name: str) -> None:
        """Refuse while there is a wait.

        Raises
        ------
        TooOften
            If there is.
        """
        query = sa.select(tables.patience.c.until).where(tables.patience.c.name == self._mark(name))
        with self._timeline.reading() as connection:
            until = connection.execute(query).scalar()
        wait = (parse_instant(until) - self._now()).total_seconds() if until else 0.0
        if wait > 0:
            raise TooOften(
                "There were too many wrong passwords.",
                wait=wait,
                safe="Nothing was changed.",
                todo=f"Try again in {wait:.0f} s; a token works in the meantime.",
            )

    def wrong(self, name: str) -> None:
        """Count a wrong one."""
        table, mark, now = tables.patience, self._mark(name), self._now()
        with self._timeline.writing() as connection:
            old = table.c.at < format_instant(now - FORGOTTEN)
            connection.execute(sa.delete(table).where(old))
            known = connection.execute(sa.select(table.c.wrong).where(table.c.name == mark)).scalar()
            count = (known or 0) + 1
            wait = min(2.0 ** (count - FREE), LONGEST_WAIT) if count >= FREE else 0.0
            until = format_instant(now + timedelta(seconds=wait)) if wait else ""
            row = {"name": mark, "wrong": count, "until": until, "at": format_instant(now)}
            connection.execute(sa.delete(table).where(table.c.name == mark))
            connection.execute(sa.insert(table).values(row))
            kept = sa.select(table.c.name).order_by(table.c.at.desc()).limit(REMEMBERED).scalar_subquery()
            connection.execute(sa.delete(table).where(table.c.name.not_in(kept)))

    def right(self, name: str) -> None:
        """Forget the wrong ones."""
        table, mark = tables.patience, self._mark(name)
        with self._timeline.reading() as connection:
            known = connection.execute(sa.select(table.c.wrong).where(table.c.name == mark)).scalar()
        if known:
            with self._timeline.engine.begin() as connection:
                connection.execute(sa.delete(table).where(table.c.name == mark))

    def _mark(self, name: str) -> str:
        return hmac.new(self._key, f"patience/{name}".encode(errors="replace"), hashlib.sha256).hexdigest()[:32]
