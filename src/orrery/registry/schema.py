"""MLflow's tables in orrery's database: made, and brought to the installed MLflow, in one transaction.

Looking costs milliseconds and does not import MLflow; its own migrations do the work. MLflow itself runs them where
SQLite commits after each statement: a process killed among them would leave tables that no later start can mend. So
they run here on a connection that is already in a transaction.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa

from orrery.errors import Damaged, OrreryError
from orrery.timeline.store import connect

_LOCK = 0x6D6C666C  # an arbitrary constant: all who create or change MLflow's tables in PostgreSQL ask for it
_LINE = re.compile(r"^(revision|down_revision)\b[^=\n]*=\s*[\"']([0-9a-z]+)[\"']", re.MULTILINE)


def upgrade(database: str, say: Callable[[str], None] = lambda text: None, *, make: bool = False) -> None:
    """Bring MLflow's tables to the installed MLflow; nothing where they are there already.

    Parameters
    ----------
    database : URL of the database.
    say : told what is done, before it is done.
    make : whether to make the tables where there are none.

    Raises
    ------
    Damaged
        If a newer MLflow wrote the tables.
    OrreryError
        If a migration fails; nothing has changed then.
    """
    # Without foreign keys: tables that a migration makes anew would take with them what refers to them.
    engine = connect(database)
    try:
        with engine.connect().execution_options(orrery_reads=True) as connection:
            found = revision(connection)
        if found == newest() or (found is None and not make):
            return
        installed = f"MLflow {version('mlflow')}"
        if found is not None and found not in _revisions():
            raise Damaged(
                f"The registry's tables were written by a newer MLflow (revision {found}, unknown to {installed}).",
                safe="Nothing was changed.",
                todo="Install the MLflow that wrote them, or open a backup.",
            )
        if found is not None:
            say(
                f"The registry's tables are of an older MLflow: bringing them from {found} to {newest()} ({installed})."
            )
        try:
            with engine.begin() as connection:
                if found is None and connection.dialect.name == "sqlite":
                    _make(connection)
                else:
                    _migrate(connection)
        except Exception as error:
            raise OrreryError(
                f"The registry's tables could not be brought to revision {newest()} ({installed}): {error}.",
                safe="They are as they were.",
                todo="Make room if the disk is full, else install the MLflow that wrote them; then try again.",
            ) from error
    finally:
        engine.dispose()


def revision(connection: sa.Connection) -> str | None:
    """Return the revision of the tables in a database; None where there are none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


@cache
def newest() -> str:
    """Return the revision that the installed MLflow works with."""
    (head,) = _revisions().keys() - _revisions().values()
    return head


@cache
def _revisions() -> dict[str, str]:
    """Return revision -> the one before it, read from the text of MLflow's migrations."""
    spec = find_spec("mlflow")
    assert spec is not None and spec.origin is not None
    found: dict[str, str] = {}
    for file in Path(spec.origin).parent.glob("store/db_migrations/versions/*.py"):
        said = dict(_LINE.findall(file.read_text()))
        if "revision" in said:
            found[said["revision"]] = said.get("down_revision", "")
    return found


def _make(connection: sa.Connection) -> None:
    if revision(connection) is None:  # another process may have been faster
        for statement in _statements():
            connection.exec_driver_sql(statement)


@cache
def _statements() -> list[str]:
    """What the migrations make, without their hundred steps: a process may make the tables of many databases."""
    engine = sa.create_engine("sqlite://")
    with engine.begin() as scratch:
        _migrate(scratch)
        made = scratch.connection.driver_connection
        assert isinstance(made, sqlite3.Connection)
        statements = list(made.iterdump())[1:-1]  # without its own BEGIN and COMMIT
    engine.dispose()
    return statements


def _migrate(connection: sa.Connection) -> None:
    """Do what MLflow's own ``env.py`` does, on this connection; other processes wait for its transaction."""
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    if revision(connection) is None:
        InitialBase.metadata.create_all(connection)
    config = _get_alembic_config(str(connection.engine.url))
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(
        config, script, fn=lambda found, context: script._upgrade_revs("heads", found)
    ) as environment:
        environment.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
        environment.run_migrations()
