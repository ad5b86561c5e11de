from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from orrery.errors import Damaged, NotUnderstood
from orrery.settings import Settings
from orrery.testing.timeline_contract import ManualClock, TimelineContract
from orrery.timeline import schema
from orrery.timeline.store import Timeline, connect


class TestSqlite(TimelineContract):
    @pytest.fixture
    def timeline(self, home: Settings) -> Iterator[Timeline]:
        engine = connect(home.database)
        schema.upgrade(engine)
        yield Timeline(engine, ManualClock())
        engine.dispose()


@pytest.mark.postgresql
class TestPostgresql(TimelineContract):
    @pytest.fixture
    def timeline(self, postgresql: Callable[[], str]) -> Iterator[Timeline]:
        engine = connect(postgresql())
        schema.upgrade(engine)
        yield Timeline(engine, ManualClock())
        engine.dispose()

    def test_the_database_refuses_truncation(self, timeline: Timeline) -> None:
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), timeline.engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE events"))


def test_other_databases_are_refused() -> None:
    with pytest.raises(NotUnderstood, match="SQLite or PostgreSQL"):
        connect("mysql://localhost/x")


def test_a_newer_database_is_not_touched(home: Settings) -> None:
    engine = connect(home.database)
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(Damaged, match="newer orrery"):
        schema.upgrade(engine)
    engine.dispose()


def test_upgrading_twice_changes_nothing(home: Settings) -> None:
    engine = connect(home.database)
    schema.upgrade(engine)
    before = sa.inspect(engine).get_table_names()
    schema.upgrade(engine)
    assert sa.inspect(engine).get_table_names() == before
    engine.dispose()
