"""The chain of evidence of a version, read off a golden log: three months of the demo, with a drift alarm."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orrery.errors import NotFound
from orrery.testing.timeline_contract import ManualClock
from orrery.timeline import schema
from orrery.timeline.event import Draft, Event, from_json
from orrery.timeline.state import ModelState
from orrery.timeline.states import States
from orrery.timeline.store import Timeline, connect
from orrery.timeline.why import Chain, chain

MODEL = "flight-delay"
LOG = Path(__file__).parent / "golden" / "flights-summer.jsonl.gz"


@pytest.fixture(scope="module")
def timeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timeline]:
    engine = connect(f"sqlite:///{tmp_path_factory.mktemp('golden') / 'orrery.db'}")
    schema.upgrade(engine)
    clock = ManualClock()
    filled = Timeline(engine, clock)
    with gzip.open(LOG, "rt", encoding="utf-8") as lines:
        events = [from_json(json.loads(line)) for line in lines]
    for event in events:
        clock.instant = event.recorded_at
        filled.append([Draft(**{name: getattr(event, name) for name in Draft.__struct_fields__})])
    yield filled
    engine.dispose()


@pytest.fixture(scope="module")
def model(timeline: Timeline) -> ModelState:
    return States(timeline).model(MODEL)


def said(found: Chain, what: str) -> list[str]:
    return [link.says for link in found.links if link.what == what]


def test_from_the_alarm_to_the_promotion(timeline: Timeline, model: ModelState) -> None:
    found = chain(timeline, model, 11)
    order = list(dict.fromkeys(link.what for link in found.links))
    assert [one for one in order if one in ("alarm", "trigger", "training", "gate", "promotion")] == [
        "alarm",
        "trigger",
        "training",
        "gate",
        "promotion",
    ]
    (alarm,) = (event for event in timeline.read(MODEL, kinds=["alarmed"]))
    assert any(alarm.seq in link.events for link in found.links)
    assert "dewp" in said(found, "alarm")[-1] and "once in" in said(found, "alarm")[-1]
    assert (
        "in place of version 10" in said(found, "promotion")[-1] and "approved by mara" in said(found, "promotion")[-1]
    )
    (course,) = (one for one in found.courses if one.name.startswith("features"))
    assert course.limit == alarm.data["promise"]
    assert course.points[-1] == (alarm.occurred_at, pytest.approx(alarm.data["statistic"]))
    assert all(value < alarm.data["promise"] for _, value in course.points[:-1])


def test_every_link_names_events_that_say_so(timeline: Timeline, model: ModelState) -> None:
    events: dict[int, Event] = {event.seq: event for event in timeline.read()}
    for number in model.versions:
        found = chain(timeline, model, number)
        assert found.links and found.outcome
        for link in found.links:
            assert link.events and all(events[seq].model in (MODEL, "") for seq in link.events)
            assert events[link.events[0]].occurred_at <= link.at <= events[link.events[-1]].occurred_at or (
                link.at in [events[seq].occurred_at for seq in link.events]
            )
        assert [link.at for link in found.links] == sorted(link.at for link in found.links)


def test_a_repair_says_what_was_corrected_and_that_nothing_was_trained(timeline: Timeline, model: ModelState) -> None:
    (training,) = said(chain(timeline, model, 3), "training")
    assert training.startswith("No training: the probabilities of version 2 are corrected")


def test_the_first_version_has_a_commit_and_a_review_and_no_alarm(timeline: Timeline, model: ModelState) -> None:
    found = chain(timeline, model, 1)
    assert not said(found, "alarm")
    assert any("The first model" in one for one in said(found, "commit"))
    assert any("mara approves" in one for one in said(found, "review"))


def test_without_a_number_it_is_the_champion(timeline: Timeline, model: ModelState) -> None:
    champion = model.lane("production").champion
    found = chain(timeline, model)
    assert found.version == champion and found.outcome.startswith(
        f"Version {champion} of {MODEL} answers in production"
    )


def test_what_is_not_there_is_said(timeline: Timeline, model: ModelState) -> None:
    with pytest.raises(NotFound, match="no version 99"):
        chain(timeline, model, 99)
    with pytest.raises(NotFound, match="answers in production"):
        chain(timeline, ModelState(name="empty"))
