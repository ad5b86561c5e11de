"""What every database under a timeline must hold. Subclass it, give it a fixture ``timeline``, and run pytest."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from orrery.errors import Conflict, NotUnderstood
from orrery.timeline.clock import Clock
from orrery.timeline.event import GENESIS, Draft
from orrery.timeline.store import Timeline, events
from orrery.timeline.verify import verify


class ManualClock(Clock):
    """A clock that a test sets."""

    def __init__(self, instant: datetime | None = None) -> None:
        self.instant = instant or datetime(2013, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the instant that it was set to."""
        return self.instant


def note(why: str = "because", model: str = "tides", **fields: Any) -> Draft:
    """Return a draft for tests."""
    return Draft(kind="business", actor="nora", why=why, model=model, **fields)


class TimelineContract:
    """The obligations of :mod:`orrery.timeline.store`, as tests."""

    def test_an_appended_event_is_read_back_whole(self, timeline: Timeline) -> None:
        """Every field, instants and numbers included, comes back as it went in."""
        when = datetime(2013, 6, 10, 5, 0, 0, 123456, tzinfo=UTC)
        data = {"x": 0.1, "text": "Ä – \x00-free ✓", "none": None, "list": [1, [2.5e-300]], "big": 2**53}
        (event,) = timeline.append([note(data=data, occurred_at=when, version=7, environment="production")])
        assert list(timeline.read("tides")) == [event]
        assert event.data == data and event.occurred_at == when and event.seq == 1 and event.prev_hash == GENESIS

    def test_the_chain_holds_and_has_no_gaps(self, timeline: Timeline) -> None:
        """Numbers follow each other and hashes too."""
        for number in range(5):
            timeline.append([note(str(number)), note(f"{number} again", model="other")])
        verdict = verify(event.to_json() for event in timeline.read())
        assert verdict.holds and verdict.events == 10 and verdict.head == timeline.head()[1]

    def test_appending_twice_is_appending_once(self, timeline: Timeline) -> None:
        """A draft whose id is there is not written again; the first event stands."""
        first = timeline.append([note("first", id="a")])
        again = timeline.append([note("second", id="a"), note("new", id="b"), note("new", id="b")])
        assert again[0] == first[0] and again[1] == again[2] and timeline.head()[0] == 2

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE events SET why = 'x' WHERE seq = 1",
            "DELETE FROM events WHERE seq = 1",
            "DELETE FROM events",
            "UPDATE events SET seq = 99 WHERE seq = 1",
        ],
    )
    def test_the_database_refuses_change(self, timeline: Timeline, statement: str) -> None:
        """Not the library: the database itself, whoever asks."""
        timeline.append([note()])
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), timeline.engine.begin() as connection:
            connection.execute(sa.text(statement))
        assert verify(event.to_json() for event in timeline.read()).events == 1

    def test_the_database_refuses_replacement(self, timeline: Timeline) -> None:
        """An insert over an event that is there is refused too."""
        timeline.append([note()])
        row = {**next(iter(timeline.read())).to_json(), "data": "{}", "why": "forged"}
        with pytest.raises(sa.exc.DBAPIError), timeline.engine.begin() as connection:
            connection.execute(events.insert(), [row])

    def test_all_or_none(self, timeline: Timeline) -> None:
        """A write beside the events that fails takes them with it."""

        def fails(connection: sa.Connection, fresh: list[Any]) -> None:
            raise RuntimeError("the write beside")

        with pytest.raises(RuntimeError):
            timeline.append([note(), note()], within=fails)
        assert timeline.head() == (0, GENESIS)

    def test_bad_drafts_write_nothing(self, timeline: Timeline) -> None:
        """No reason, an unknown kind, a number that JSON lacks: refused, and nothing beside it written."""
        for bad in (note(" "), Draft(kind="nonsense", actor="a", why="w"), note(data={"x": float("nan")})):
            with pytest.raises(NotUnderstood):
                timeline.append([note(), bad])
        assert timeline.head()[0] == 0

    def test_many_writers_make_one_chain(self, timeline: Timeline) -> None:
        """Threads append at once: nothing is lost, nothing doubled, the chain holds."""
        failures: list[BaseException] = []

        def write(writer: int) -> None:
            try:
                for number in range(10):
                    timeline.append([note(f"{writer}-{number}"), note(f"{writer}-{number} b")])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        verdict = verify(event.to_json() for event in timeline.read())
        assert verdict.holds and verdict.events == 120

    def test_a_stale_view_is_told(self, timeline: Timeline) -> None:
        """Who decides on an old state learns that it is old; other models do not matter."""
        (first,) = timeline.append([note()])
        timeline.append([note(model="other")])
        timeline.append([note("fresh")], model_at={"tides": first.seq})
        with pytest.raises(Conflict):
            timeline.append([note("stale")], model_at={"tides": first.seq})

    def test_a_clock_that_goes_back_does_not_unsay_the_order(self, timeline: Timeline) -> None:
        """``recorded_at`` never goes back; ``occurred_at`` is what the writer says."""
        clock = ManualClock(datetime(2013, 5, 1, tzinfo=UTC))
        timeline = Timeline(timeline.engine, clock)
        (before,) = timeline.append([note()])
        clock.instant -= timedelta(days=3)
        (after,) = timeline.append([note(occurred_at=clock.instant)])
        assert after.recorded_at == before.recorded_at and after.occurred_at == clock.instant
        assert verify(event.to_json() for event in timeline.read()).holds

    def test_reading_by_model_kind_version_and_time(self, timeline: Timeline) -> None:
        """Each filter shows what it says, in order, and no more than asked for."""
        day = datetime(2013, 1, 1, tzinfo=UTC)
        timeline.append([note(str(n), version=n % 3, occurred_at=day + timedelta(days=n)) for n in range(10)])
        timeline.append([note(model="")])
        assert [event.why for event in timeline.read("tides", version=1)] == ["1", "4", "7"]
        assert [event.why for event in timeline.read("tides", until=day + timedelta(days=2))] == ["0", "1", "2"]
        assert [event.seq for event in timeline.read("tides", newest_first=True, limit=2)] == [10, 9]
        assert [event.seq for event in timeline.read("tides", after=3, before=6)] == [4, 5]
        assert [event.model for event in timeline.read("")] == [""]
        assert timeline.models() == ["tides"]
