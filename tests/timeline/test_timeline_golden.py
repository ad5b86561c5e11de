"""Golden logs: timelines of real runs, kept as they were written, which every later orrery must read the same way.

They are never edited, and no expectation beside them is ever brought in line with the code. Somebody's timeline from
that time is the only record of what served then, and why; it cannot be written anew. Where one of these tests fails,
what changed is the meaning of old events, and that change is the fault: give the new meaning to a new kind, or to a
new key of ``data`` with the old behaviour where it is absent. A new release adds a log; it never replaces one.

``flights-summer`` is three months of the demo on the flights of 2013, with an incident. Before it was kept, names of
folders were replaced by ``/srv`` and the chain was sealed again.
"""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orrery.settings import Settings
from orrery.testing.timeline_contract import ManualClock
from orrery.timeline import schema
from orrery.timeline.event import Draft, Event, from_json
from orrery.timeline.fold import fold
from orrery.timeline.state import ModelState
from orrery.timeline.states import States
from orrery.timeline.store import Timeline, connect
from orrery.timeline.verify import verify
from orrery.types import format_instant

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(path.name.removesuffix(".jsonl.gz") for path in FOLDER.glob("*.jsonl.gz"))


def log(name: str) -> list[dict[str, Any]]:
    with gzip.open(FOLDER / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.expected.json").read_text())
    return found


def summary(state: ModelState) -> dict[str, Any]:
    def text(instant: datetime | None) -> str | None:
        return None if instant is None else format_instant(instant)

    lanes = {
        lane.environment: {
            "champion": lane.champion,
            "tenures": [[number, text(since), text(until)] for number, since, until in lane.tenures],
        }
        for lane in state.lanes.values()
    }
    versions = {str(version.number): [version.change, version.passed] for version in state.versions.values()}
    return {"seq": state.seq, "lanes": lanes, "versions": versions}


def write(timeline: Timeline, clock: ManualClock, event: Event) -> Event:
    """Append an event as it once was appended."""
    clock.instant = event.recorded_at
    fields = {name: getattr(event, name) for name in Draft.__struct_fields__}
    return timeline.append([Draft(**fields)])[0]


def test_there_are_golden_logs() -> None:
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_verifies(name: str) -> None:
    wanted = expected(name)
    verdict = verify(log(name), head=wanted["head"])
    assert verdict.holds and verdict.events == wanted["events"]


@pytest.mark.parametrize("name", NAMES)
def test_it_folds_to_the_state_of_then(name: str) -> None:
    events = [from_json(fields) for fields in log(name)]
    models = expected(name)["models"]
    for model, wanted in models.items():
        mine = [event for event in events if event.model == model]
        assert summary(fold(ModelState(name=model), mine)) == wanted
        # the negative control: a log without its last promotion does not pass
        last = max(event.seq for event in mine if event.kind == "promoted")
        assert summary(fold(ModelState(name=model), [event for event in mine if event.seq != last])) != wanted
    assert models.keys() == {event.model for event in events} - {""}


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_into_a_fresh_database_event_by_event_unchanged(home: Settings, name: str) -> None:
    clock = ManualClock()
    engine = connect(home.database)
    schema.upgrade(engine)
    timeline, states = Timeline(engine, clock), States(Timeline(engine, clock))
    chain = log(name)
    for number, fields in enumerate(chain):
        event = from_json(fields)
        written = write(timeline, clock, event)
        assert (written.hash, written.prev_hash, written.seq) == (event.hash, event.prev_hash, event.seq)
        if event.model and number % 7 == 0:
            states.model(event.model)  # a projection that is carried along
    assert [event.to_json() for event in timeline.read()] == chain
    assert timeline.models() == sorted(expected(name)["models"])
    for model, wanted in expected(name)["models"].items():
        carried, stored = states.model(model), States(timeline).model(model)
        States(timeline).rebuild()
        assert carried == stored == States(timeline).model(model)
        assert summary(carried) == wanted
    engine.dispose()


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 10_000), max_size=6))
@pytest.mark.parametrize("name", NAMES)
def test_where_the_log_is_cut_does_not_matter(name: str, cuts: list[int]) -> None:
    """Folding in pieces is folding at once."""
    model = next(iter(expected(name)["models"]))
    events = [event for event in map(from_json, log(name)) if event.model == model]
    whole = fold(ModelState(name=model), events)
    places = [0, *sorted(cut % len(events) for cut in cuts), len(events)]
    state = ModelState(name=model)
    for start, end in pairwise(places):
        state = fold(state, events[start:end])
    assert state == whole
