"""How alembic runs the migrations: on the connection it was handed, in that connection's transaction."""

from __future__ import annotations

from alembic import context

from orrery.timeline.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=False,  # the transaction is ours: begun by the caller, committed by the caller
)
context.run_migrations()
