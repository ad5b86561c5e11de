"""The database schema: a chain of migrations, run when an orrery is opened."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

VERSION_TABLE = "orrery_schema"
"""MLflow keeps its own version in ``alembic_version`` of the same database."""


def upgrade(engine: sa.Engine) -> None:
    """Bring the schema to the newest version; does nothing where it is there already.

    Raises
    ------
    Damaged
        If the database was written by a newer orrery.
    """
    with engine.connect().execution_options(orrery_reads=True) as connection:
        if sa.inspect(connection).has_table(VERSION_TABLE):
            query = f"SELECT version_num FROM {VERSION_TABLE}"  # nosec B608 - a constant
            current = connection.execute(sa.text(query)).scalar()
            if current == head():
                return
            _refuse_newer(current)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(1869771365)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def head() -> str:
    """Return the newest version of the schema: the files are numbered."""
    return max(path.stem.split("_")[0] for path in (_folder() / "versions").glob("[0-9]*.py"))


def _folder() -> Path:
    return Path(__file__).with_name("migrations")


def _refuse_newer(current: str | None) -> None:
    from orrery.errors import Damaged

    if current is not None and current > head():
        raise Damaged(
            f"This database was written by a newer orrery (schema {current}, this one knows {head()}).",
            safe="Nothing was changed.",
            todo="Install the newer orrery, or open a backup.",
        )
