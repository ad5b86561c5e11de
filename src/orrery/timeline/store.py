"""The timeline in a SQL database: append and read, nothing else.

Obligations, for every database that passes :mod:`orrery.testing.timeline_contract`:

* an event that ``append`` returned is on disk, and stays as it is: the database itself refuses UPDATE and DELETE;
* there is one chain and one writer at a time: numbers have no gaps, each event carries the hash of the one before;
* appending is idempotent: a draft whose id is there already is not written again, its event is returned;
* ``within`` joins other writes of the same database to the same transaction: all of it is there, or none.

A :class:`Timeline` may be shared by threads; processes each open their own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orrery.errors import Conflict, NotUnderstood
from orrery.timeline.clock import Clock
from orrery.timeline.event import GENESIS, Draft, Event, canonical, seal
from orrery.timeline.kinds import KINDS
from orrery.types import format_instant, parse_instant

metadata = sa.MetaData()
events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("occurred_at", sa.String(27), nullable=False),
    sa.Column("recorded_at", sa.String(27), nullable=False),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=True),
    sa.Column("environment", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("prev_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Index("events_of_model", "model", "seq"),
    sa.Index("events_of_kind", "model", "kind", "seq"),
)

_MODELS = """
WITH RECURSIVE names (model) AS (
    SELECT min(model) FROM events
    UNION ALL
    SELECT (SELECT min(events.model) FROM events WHERE events.model > names.model) FROM names WHERE model IS NOT NULL
)
SELECT model FROM names WHERE model IS NOT NULL
"""
"""Every name in order, one step in the index for each: DISTINCT would pass over all events."""

_HEAD = "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1"
"""Everybody who waits for news asks this a hundred times a second: of the driver itself it costs a tenth."""
_HEAD_OF = sa.text("SELECT seq, hash FROM events WHERE model = :model ORDER BY seq DESC LIMIT 1")

_CHAIN_LOCK = 0x6F727265  # an arbitrary constant: all writers of one PostgreSQL database ask for the same lock


def connect(url: str, *, durable: bool = True) -> sa.Engine:
    """Open the database: SQLite in WAL mode where every transaction that writes begins as a writer, or PostgreSQL.

    Parameters
    ----------
    url : where it is.
    durable : a commit is on the disk when it returns. Without, a loss of power may undo the last ones (in SQLite; they
        stay whole and in order), which is for what a restart forgets anyway.

    Raises
    ------
    NotUnderstood
        If the URL is of another database.
    """
    target = sa.make_url(url)
    if target.get_backend_name() == "postgresql":
        return sa.create_engine(target.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    if target.get_backend_name() != "sqlite":
        raise NotUnderstood(f"orrery keeps its timeline in SQLite or PostgreSQL, not in {target.drivername}.")
    engine = sa.create_engine(target, connect_args={"timeout": 60, "check_same_thread": False})
    return as_one_writer(engine, synchronous="FULL" if durable else "NORMAL")


def as_one_writer(engine: sa.Engine, *, synchronous: str = "FULL") -> sa.Engine:
    """Make a SQLite engine wait for its turn to write, instead of failing half-way with ``database is locked``."""

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves: the driver's own would begin as a reader
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute(f"PRAGMA synchronous = {synchronous}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("orrery_reads")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


class Timeline:
    """What happened, in order.

    Parameters
    ----------
    engine : of :func:`connect`, its schema at head (see :func:`orrery.timeline.schema.upgrade`).
    clock : tells when an event was recorded, and when it occurred if its draft does not say.
    """

    def __init__(self, engine: sa.Engine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock

    def append(
        self,
        drafts: Iterable[Draft],
        *,
        within: Callable[[sa.Connection, list[Event]], None] | None = None,
        model_at: dict[str, int] | None = None,
        connection: sa.Connection | None = None,
    ) -> list[Event]:
        """Write events down, all or none.

        Parameters
        ----------
        drafts : what happened, in order.
        within : called with the connection and the new events inside the transaction, for writes that must come
            true together with them. It is not called when nothing is new.
        model_at : model -> seq of the newest event of that model which the caller has seen.
        connection : an open transaction to join; it is then the caller's to commit.

        Returns
        -------
        The events, one a draft, in the order of the drafts; those that were there already as they were.

        Raises
        ------
        NotUnderstood
            If a kind is unknown, a reason is missing, or data cannot be written as JSON.
        Conflict
            If a model of ``model_at`` has newer events.
        """
        wanted = list(drafts)
        for draft in wanted:
            _check(draft)
        if not wanted:
            return []
        with self._writing(connection) as open_connection:
            _lock(open_connection)
            for model, seen in (model_at or {}).items():
                newest = open_connection.execute(
                    sa.select(sa.func.max(events.c.seq)).where(events.c.model == model)
                ).scalar()
                if (newest or 0) > seen:
                    raise Conflict(f"Something else happened to {model} in the meantime.", todo="Look again.")
            known = {event.id: event for event in _known(open_connection, [draft.id for draft in wanted])}
            fresh = self._chain(open_connection, [draft for draft in wanted if draft.id not in known])
            if fresh:
                open_connection.execute(events.insert(), [_row(event) for event in fresh])
                known.update({event.id: event for event in fresh})
                if within is not None:
                    within(open_connection, fresh)
        return [known[draft.id] for draft in wanted]

    def _chain(self, connection: sa.Connection, drafts: Sequence[Draft]) -> list[Event]:
        newest = connection.execute(
            sa.select(events.c.seq, events.c.hash, events.c.recorded_at).order_by(events.c.seq.desc()).limit(1)
        ).first()
        seq, prev, recorded = (
            (newest.seq, newest.hash, parse_instant(newest.recorded_at)) if newest else (0, GENESIS, None)
        )
        now = self.clock.now()
        # A clock that goes back must not make the record contradict its own order.
        recorded = now if recorded is None else max(now, recorded)
        fresh: list[Event] = []
        seen: set[str] = set()
        for draft in drafts:
            if draft.id in seen:
                continue
            seen.add(draft.id)
            event = seal(draft, seq=seq + 1, recorded_at=recorded, prev_hash=prev)
            seq, prev = event.seq, event.hash
            fresh.append(event)
        return fresh

    def read(
        self,
        model: str | None = None,
        *,
        after: int = 0,
        before: int | None = None,
        until: datetime | None = None,
        kinds: Sequence[str] = (),
        version: int | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Event]:
        """Read events in order.

        Parameters
        ----------
        model : only this model's; empty text is those of no model, None is all.
        after, before : only those with a seq above / below.
        until : only those that occurred at or before.
        kinds, version : only these.
        newest_first, limit : from the end, and at most so many.
        """
        query = sa.select(events).where(events.c.seq > after)
        if model is not None:
            query = query.where(events.c.model == model)
        if before is not None:
            query = query.where(events.c.seq < before)
        if until is not None:
            query = query.where(events.c.occurred_at <= format_instant(until))
        if kinds:
            query = query.where(events.c.kind.in_(kinds))
        if version is not None:
            query = query.where(events.c.version == version)
        query = query.order_by(events.c.seq.desc() if newest_first else events.c.seq)
        with self.reading() as connection:
            rows = connection.execute(query.limit(limit) if limit is not None else query)
            while block := rows.fetchmany(1000):
                for row in block:
                    yield _event(row)

    def named(self, ids: Sequence[str]) -> list[Event]:
        """Return the events of these ids, in order; those that are not there are left out."""
        with self.reading() as connection:
            return sorted(_known(connection, ids), key=lambda event: event.seq)

    def head(self, model: str | None = None) -> tuple[int, str]:
        """Return seq and hash of the newest event, ``(0, GENESIS)`` where there is none."""
        if model is None:
            with contextlib.closing(self.engine.raw_connection()) as raw, contextlib.closing(raw.cursor()) as cursor:
                cursor.execute(_HEAD)
                newest = cursor.fetchone()
            return (newest[0], newest[1]) if newest else (0, GENESIS)
        with self.reading() as connection:
            row = connection.execute(_HEAD_OF.bindparams(model=model)).first()
        return (row.seq, row.hash) if row else (0, GENESIS)

    def models(self) -> list[str]:
        """Return the names of all models that have events."""
        with self.reading() as connection:
            return [row.model for row in connection.execute(sa.text(_MODELS)) if row.model]

    def changed(self, after: int) -> set[str]:
        """Return the models that have events above a seq; empty text where some belong to no model."""
        with self.reading() as connection:
            rows = connection.execute(sa.select(events.c.model).distinct().where(events.c.seq > after))
            return {row.model for row in rows}

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a connection that reads one state of the database and never waits for a writer."""
        with self.engine.connect().execution_options(orrery_reads=True) as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction as the one writer of the chain, to :meth:`append` in it after other writes.

        Whoever writes elsewhere first and appends then must begin like this: the lock of the chain comes before all
        others, so that two writers never wait for each other.
        """
        with self.engine.begin() as connection:
            _lock(connection)
            yield connection

    @contextlib.contextmanager
    def _writing(self, connection: sa.Connection | None) -> Iterator[sa.Connection]:
        if connection is not None:
            yield connection
            return
        with self.writing() as fresh:
            yield fresh


def _check(draft: Draft) -> None:
    if draft.kind not in KINDS:
        raise NotUnderstood(f"{draft.kind!r} is not a kind of event.")
    if not draft.why.strip():
        raise NotUnderstood(f"An event {draft.kind} needs a reason.", todo="Say why, for somebody who was not there.")
    if not draft.actor.strip():
        raise NotUnderstood(f"An event {draft.kind} needs an actor.")


def _lock(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CHAIN_LOCK)))


def _known(connection: sa.Connection, ids: Sequence[str]) -> Iterator[Event]:
    for start in range(0, len(ids), 500):
        rows = connection.execute(sa.select(events).where(events.c.id.in_(ids[start : start + 500])))
        for row in rows:
            yield _event(row)


def _row(event: Event) -> dict[str, Any]:
    fields = event.to_json()
    fields["data"] = canonical(event.data)
    return fields


def _event(row: sa.Row[Any]) -> Event:
    return Event(
        seq=row.seq,
        id=row.id,
        occurred_at=parse_instant(row.occurred_at),
        recorded_at=parse_instant(row.recorded_at),
        model=row.model,
        version=row.version,
        environment=row.environment,
        kind=row.kind,
        actor=row.actor,
        why=row.why,
        data=json.loads(row.data),
        prev_hash=row.prev_hash,
        hash=row.hash,
    )
