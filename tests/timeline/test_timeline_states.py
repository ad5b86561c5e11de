from __future__ import annotations

import pytest
import sqlalchemy as sa

from orrery.errors import NotFound
from orrery.testing.timeline_contract import note
from orrery.timeline.states import States
from orrery.timeline.store import Timeline


def stored(timeline: Timeline) -> dict[str, int]:
    with timeline.reading() as connection:
        return {row.model: row.seq for row in connection.execute(sa.text("SELECT model, seq FROM states"))}


@pytest.mark.parametrize(
    "timeline", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)
def test_names_of_models_come_in_order_and_once(timeline: Timeline) -> None:
    assert timeline.models() == []
    timeline.append([note(model="")])
    assert timeline.models() == []
    timeline.append([note(model=name) for name in ("waves", "ebb", "tides", "ebb", "waves", "")])
    assert timeline.models() == ["ebb", "tides", "waves"]


def test_a_state_is_stored_for_its_own_events_and_not_for_those_of_others(timeline: Timeline) -> None:
    states = States(timeline)
    timeline.append([note(model="tides")])
    timeline.append([note(model="other") for _ in range(500)])
    timeline.append([note(model="tides")])
    assert states.model("tides").seq == 502
    assert stored(timeline) == {}  # two events: quicker folded than written
    assert states.model("other").seq == 501
    assert stored(timeline) == {"other": 501}


def test_a_stored_state_is_where_the_next_process_begins(timeline: Timeline) -> None:
    timeline.append([note() for _ in range(250)])
    States(timeline).model("tides")
    timeline.append([note() for _ in range(50)])
    later = States(timeline)
    assert later.model("tides").seq == 300 and stored(timeline) == {"tides": 250}
    timeline.append([note() for _ in range(150)])
    assert later.model("tides").seq == 450 and stored(timeline) == {"tides": 450}
    States(timeline).rebuild()
    assert stored(timeline) == {} and States(timeline).model("tides") == later.model("tides")


def test_who_holds_a_state_goes_on_seeing_it(timeline: Timeline) -> None:
    states = States(timeline)
    timeline.append([note(), note(model="")])
    before = states.model("tides")
    timeline.append([note()])
    assert states.model("tides").seq == 3 and before.seq == 1


def test_a_model_to_which_nothing_happened_is_not_there(timeline: Timeline) -> None:
    timeline.append([note(model="other")])
    with pytest.raises(NotFound):
        States(timeline).model("tides")
