"""MLflow's stores in orrery's own database: one engine, one writer at a time."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.db import utils as mlflow_db
from sqlalchemy.orm import Session

from orrery.errors import NotUnderstood
from orrery.registry import schema
from orrery.registry.sight import READ, TRACK, SightedSession, asking, not_yours
from orrery.timeline.clock import Clock, ReplayClock, SystemClock
from orrery.timeline.store import as_one_writer

PREFIX = "orrery+"
"""What makes a database URL one of our stores for MLflow."""
CLOCK = "orrery_clock"
"""Query parameter of a store URI: the file that a replay reads its time from."""

_MISSING = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)
_log = logging.getLogger(__name__)
_engines: dict[str, sa.Engine] = {}
_engines_lock = threading.Lock()
_open: ContextVar[sa.Connection | None] = ContextVar("open", default=None)


def store_uri(database: str, replay: Path | None = None) -> str:
    """Return the URI under which MLflow finds our stores for a database.

    >>> store_uri("sqlite:////home/tom/orrery.db")
    'orrery+sqlite:////home/tom/orrery.db'
    """
    url = sa.make_url(database)
    plain = url.set(drivername=url.get_backend_name())
    if replay is not None:
        plain = plain.update_query_dict({CLOCK: str(replay)})
    return PREFIX + plain.render_as_string(hide_password=False)


def opened(uri: str) -> tuple[str, Clock]:
    """Return the database URL that a store URI stands for, and the clock of its orrery.

    Raises
    ------
    NotUnderstood
        If the database is neither SQLite nor PostgreSQL.
    """
    url = sa.make_url(uri.removeprefix(PREFIX))
    replay = url.query.get(CLOCK)
    url = url.difference_update_query([CLOCK])
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    elif url.get_backend_name() != "sqlite":
        raise NotUnderstood(f"orrery keeps its registry in SQLite or PostgreSQL, not in {url.drivername}.")
    clock = ReplayClock(Path(str(replay))) if replay else SystemClock()
    return url.render_as_string(hide_password=False), clock


def engine_of(url: str) -> sa.Engine:
    """Return this process's engine for a database URL, MLflow's tables in place; its transactions only read.

    ``engine.execution_options(orrery_reads=False)`` is the same engine for those that write.
    """
    with _engines_lock:
        if url not in _engines:
            schema.upgrade(url, _log.warning, make=True)
            engine = mlflow_db.create_sqlalchemy_engine(url)
            if engine.dialect.name == "sqlite":
                as_one_writer(engine)
                sa.event.listen(engine, "connect", _as_mlflow_expects)
            _engines[url] = engine.execution_options(orrery_reads=True)
        return _engines[url]


@contextlib.contextmanager
def joining(connection: sa.Connection) -> Iterator[None]:
    """Make all sessions that MLflow's stores open in this block part of an open transaction."""
    token = _open.set(connection)
    try:
        yield
    finally:
        _open.reset(token)


def managed_sessions(engine: sa.Engine) -> Callable[..., contextlib.AbstractContextManager[Session]]:
    """Return what MLflow's stores open their sessions with.

    A session that only reads never waits for a writer. MLflow opens sessions that write inside others: here they are
    one transaction, since with one writer at a time the inner would wait for the outer for ever.

    Each sees what the one who asks may see (:mod:`orrery.registry.sight`).
    """
    writing = engine.execution_options(orrery_reads=False)

    def session() -> Session:
        return SightedSession(bind=_open.get() or engine, join_transaction_mode="create_savepoint")

    # No database type: MLflow would shorten the time that a connection waits for its turn.
    managed = mlflow_db._get_managed_session_maker(session, "")

    @contextlib.contextmanager
    def make(read_only: bool = True) -> Iterator[Session]:
        with contextlib.ExitStack() as stack:
            if not read_only and _open.get() is None:
                stack.enter_context(joining(stack.enter_context(writing.begin())))
            opened = stack.enter_context(managed(read_only=read_only))
            opened.info["permission"] = READ if read_only else TRACK
            try:
                yield opened
            except MlflowException as error:
                sight = asking.get()
                hidden = sight is not None and not read_only and sight.projects(TRACK) is not None
                if sight is not None and hidden and error.error_code == _MISSING:
                    raise not_yours(sight) from error
                raise

    return make


def _as_mlflow_expects(connection: sqlite3.Connection, record: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA case_sensitive_like = ON")
