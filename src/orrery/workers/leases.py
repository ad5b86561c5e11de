"""Leases: an action is done by one worker at a time, and by another one when that worker is gone.

A worker takes an action for some seconds and renews the lease while it works. A worker that dies renews nothing, so
its actions are free again when their leases run out. A lease says who *may* work, not who did: actions are idempotent,
and a worker that slept through its lease learns from :meth:`Leases.renew` that it has lost it.

Leases are about machines, so they use the clock on the wall, and on PostgreSQL the one of the database server, which
all machines share; never the clock of a replay.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

SECONDS = 30.0
"""How long a lease lasts if the worker does not say."""

leases = sa.Table(
    "leases",
    sa.MetaData(),  # made by the timeline's migrations
    sa.Column("action", sa.String(200), primary_key=True),
    sa.Column("worker", sa.String(64), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
)


@dataclass(frozen=True)
class Lease:
    """Who holds an action.

    Parameters
    ----------
    action, worker : which, and who.
    until : end of the lease, seconds since 1970.
    attempts : how often the action was taken, this time included.
    """

    action: str
    worker: str
    until: float
    attempts: int


class Leases:
    """The leases of one orrery; may be shared by threads.

    Parameters
    ----------
    engine : of :func:`orrery.timeline.store.connect`, its schema at head.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def take(self, actions: Sequence[str], worker: str, seconds: float = SECONDS) -> str | None:
        """Take the first action that nobody holds, for so many seconds; None if all are held.

        A lease that ran out is nobody's. Whoever holds an action cannot take it a second time.
        """
        if not actions:
            return None
        held = {lease.action for lease in self.held()}  # reading first: an idle worker never waits for a writer
        for action in actions:
            if action not in held and self._take(action, worker, seconds):
                return action
        return None

    def renew(self, action: str, worker: str, seconds: float = SECONDS) -> bool:
        """Hold the action for so many seconds from now; False if the worker has lost it: it must stop."""
        with self._engine.begin() as connection:
            now = _now(connection)
            mine = (leases.c.action == action) & (leases.c.worker == worker) & (leases.c.until > now)
            done = connection.execute(leases.update().where(mine).values(until=now + seconds))
        return done.rowcount == 1

    def release(self, action: str, worker: str) -> bool:
        """Let go of the action; its attempts stay counted. False if the worker did not hold it."""
        mine = (leases.c.action == action) & (leases.c.worker == worker)
        return self._free(mine) == 1

    def release_all(self, worker: str) -> int:
        """Let go of all that a worker of this name holds: it starts anew, its predecessor is dead."""
        return self._free(leases.c.worker == worker)

    def attempts(self, action: str) -> int:
        """Return how often the action was taken."""
        query = sa.select(leases.c.attempts).where(leases.c.action == action)
        with self._reading() as connection:
            return connection.execute(query).scalar() or 0

    def held(self) -> list[Lease]:
        """Return the leases that have not run out."""
        with self._reading() as connection:
            query = sa.select(leases).where(leases.c.until > _now(connection)).order_by(leases.c.action)
            return [Lease(*row) for row in connection.execute(query)]

    def _reading(self) -> sa.Connection:
        return self._engine.connect().execution_options(orrery_reads=True)

    def _free(self, which: sa.ColumnElement[bool]) -> int:
        with self._engine.begin() as connection:
            query = leases.update().where(which & (leases.c.until > 0)).values(until=0.0)
            return connection.execute(query).rowcount

    def _take(self, action: str, worker: str, seconds: float) -> bool:
        """Take one action with one statement, which the database lets only one of many workers do."""
        with self._engine.begin() as connection:
            now = _now(connection)
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            query = insert(leases).values(action=action, worker=worker, until=now + seconds, attempts=1)
            query = query.on_conflict_do_update(
                index_elements=[leases.c.action],
                set_={"worker": worker, "until": now + seconds, "attempts": leases.c.attempts + 1},
                where=leases.c.until <= now,
            )
            return connection.execute(query.returning(leases.c.attempts)).first() is not None


def _now(connection: sa.Connection) -> float:
    if connection.dialect.name == "postgresql":
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return time.time()
