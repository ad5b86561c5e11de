"""What came of answers: values join to the first answer of a unit, once, in time; a day's values to the day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from orrery import spec as specs
from orrery.actions.arms import daily_values, valued_units
from orrery.actions.desk import Desk
from orrery.actions.watch import compare
from orrery.app import Orrery
from orrery.data.labels import LabelTable
from orrery.data.log import PredictionLog
from orrery.errors import NotFound, NotUnderstood
from orrery.rollout.moves import next_moves
from orrery.settings import SETTINGS, load
from orrery.timeline.event import Draft
from orrery.timeline.state import Challenger
from orrery.types import format_instant
from orrery.workers.action import Action

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SPEC: dict[str, Any] = {
    "model": {"name": "toy", "task": "binary", "target": "y", "entity": "order"},
    "data": {"rows": "rows"},
    "rollout": {
        "sticky": "user",
        "redesign": {"ab": "50%"},
        "business": {
            "revenue": {"low": 0.0, "high": 50.0, "delay": "2d", "absent": 1.0},
            "sales": {"low": 0.0, "high": 1e6, "by": "day", "delay": "1d"},
        },
    },
}
ARM = Challenger(
    version=2,
    role="arm",
    since=START,
    until=START + 30 * DAY,
    change="redesign",
    share=0.5,
    unit="user",
    moved=START,
    shares=[(START, 0.5)],
)
CANARY: dict[str, Any] = {
    **SPEC,
    "rollout": {**SPEC["rollout"], "redesign": {"shadow": False, "canary": ["50%"], "guard": "14d"}},
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    desk = Desk(Orrery(load(tmp_path / "home")), again=False)
    commit = {"commit": "abc", "message": "m", "author": "ann", "spec": specs.to_dict(specs.from_dict(SPEC))}
    desk.orrery.append([Draft(kind="pushed", model="toy", actor="ann", why="because", data=commit)])
    yield desk
    desk.orrery.timeline.engine.dispose()


def answered(desk: Desk, *answers: tuple[str, str, float, int], role: str = "arm") -> None:
    """Log answers: order, user, hours since the start, version."""
    frame = pl.DataFrame(
        {
            "_id": [f"r{place}" for place in range(len(answers))],
            "_at": pl.Series([START + hours * HOUR for _, _, hours, _ in answers], dtype=pl.Datetime("us", "UTC")),
            "_environment": ["production"] * len(answers),
            "_version": pl.Series([version for *_, version in answers], dtype=pl.Int32),
            "_role": [role if version == 2 else "champion" for *_, version in answers],
            "_entity": [order for order, *_ in answers],
            "_output": [[0.5]] * len(answers),
            "user": [user for _, user, *_ in answers],
        }
    )
    PredictionLog(desk.orrery.lake, "toy").append(frame)


def came(desk: Desk, metric: str, *values: tuple[str, float, datetime]) -> None:
    names, numbers, at = zip(*values, strict=True)
    frame = pl.DataFrame({"entity": names, "label": numbers, "at": pl.Series(at, dtype=pl.Datetime("us", "UTC"))})
    desk.orrery.add_values("toy", metric, frame)


def units(desk: Desk, since: datetime, until: datetime) -> list[tuple[float, bool]]:
    policy = specs.from_dict(SPEC)
    found = valued_units(desk, "toy", "production", ARM, 1, policy, since, until)
    assert set(found) == {"revenue"}
    assert set(found["revenue"]["share"]) <= {0.5}
    return sorted(found["revenue"].select("value", "arm").rows())


def test_each_unit_counts_once_with_what_came_of_its_first_answer_in_time(desk: Desk) -> None:
    answered(
        desk,
        ("o1", "ann", 1, 2),  # bought at once, and corrected
        ("o2", "ann", 5, 2),  # the same user again: not drawn again
        ("o3", "bob", 2, 1),  # bought too late
        ("o4", "cid", 3, 1),  # bought
        ("o5", "dea", 4, 2),  # never did
        ("o6", "eve", 60, 1),  # her time is not over
    )
    came(
        desk, "revenue", ("o1", 10.0, START + 2 * HOUR), ("o1", 12.0, START + 3 * HOUR), ("o2", 40.0, START + 6 * HOUR)
    )
    came(
        desk,
        "revenue",
        ("o3", 30.0, START + 2 * DAY + 3 * HOUR),
        ("o4", 20.0, START + DAY),
        ("o6", 9.0, START + 61 * HOUR),
    )
    whole = units(desk, START, START + 3 * DAY)
    assert whole == [(1.0, False), (1.0, True), (12.0, True), (20.0, False)]
    cuts = [START, START + 2 * DAY + 2 * HOUR, START + 2 * DAY + 4 * HOUR, START + 3 * DAY]
    parts = [one for since, until in pairwise(cuts) for one in units(desk, since, until)]
    assert sorted(parts) == whole


def test_a_unit_of_a_canary_has_the_share_at_which_it_was_drawn(desk: Desk) -> None:
    """Who was the champion's at 5 % and the canary's at 25 % came first at 5 %, and counts there."""
    answered(
        desk,
        ("o1", "ann", 1, 1),
        ("o2", "bob", 2, 2),
        ("o3", "ann", 26, 2),
        ("o4", "cid", 27, 2),
        role="canary",
    )
    came(desk, "revenue", ("o1", 5.0, START + 2 * HOUR), ("o3", 40.0, START + 27 * HOUR))
    one = msgspec.structs.replace(ARM, role="canary", share=0.25, shares=[(START, 0.05), (START + DAY, 0.25)])
    policy = specs.from_dict(CANARY)
    found = valued_units(desk, "toy", "production", one, 1, policy, START, START + 4 * DAY)["revenue"]
    assert sorted(found.rows()) == [(1.0, True, 0.05), (1.0, True, 0.25), (5.0, False, 0.05)]


def test_a_day_counts_when_it_is_over_and_its_value_final(desk: Desk) -> None:
    told = [(f"2024-03-0{day}", 100.0 * day, START + day * DAY) for day in (1, 2, 3)]
    came(desk, "sales", *told, ("2024-03-02", 250.0, START + 3 * DAY))
    rule = specs.from_dict(SPEC).rollout.business["sales"]
    found = daily_values(desk, "toy", "sales", rule, specs.from_dict(SPEC), START + 3 * DAY + HOUR)
    assert found == {date(2024, 3, 1): 100.0, date(2024, 3, 2): 250.0}


def test_values_that_nobody_would_look_at_are_refused(desk: Desk) -> None:
    frame = pl.DataFrame({"entity": ["o1"], "label": [1.0], "at": [START]})
    with pytest.raises(NotFound, match=r"revenu.*\n?.*Known: revenue, sales|Known: revenue, sales"):
        desk.orrery.add_values("toy", "revenu", frame)
    for label in (["much"], [float("nan")], [float("inf")]):
        with pytest.raises(NotUnderstood, match="no number"):
            desk.orrery.add_values("toy", "revenue", frame.with_columns(label=pl.Series(label)))


def beside(desk: Desk, role: str, commit: str = "abc") -> None:
    """Version 1 answers in production since the start; version 2 is beside it."""
    until = {"until": format_instant(START + 30 * DAY), "change": "redesign", "share": 0.5, "unit": "user"}
    if role == "canary":
        until["steps"] = [0.5]
    known = {
        "commit": commit,
        "change": "redesign",
        "data": {"rows": 1},
        "classes": [False, True],
        "expected_loss": 0.2,
    }
    for kind, version, data in (
        ("trained", 1, {"run": "a", **known}),
        ("trained", 2, {"run": "b", **known}),
        ("promoted", 1, {}),
        ("challenged", 2, {"role": role, **until}),
    ):
        place = "" if kind == "trained" else "production"
        about: dict[str, Any] = {"model": "toy", "actor": "t", "why": "because", "occurred_at": START}
        desk.orrery.append([Draft(kind=kind, version=version, environment=place, data=data, **about)])


def compared(desk: Desk, days: int) -> tuple[Draft, list[str], str]:
    """Look once; what was found, the events that follow, and the reason of the first."""
    until = START + days * DAY
    args = {"since": format_instant(START), "until": format_instant(until)}
    action = Action(key="c", kind="compare", model="toy", version=2, environment="production", args=args)
    (found,) = compare(desk, desk.orrery.model("toy"), action)
    desk.orrery.append([found])
    moves = [draft for move in next_moves(desk.orrery.model("toy"), until) for draft in move.drafts]
    return found, [draft.kind for draft in moves], moves[0].why if moves else ""


@pytest.mark.parametrize(("earned", "kinds"), [(2.0, ["retired"]), (20.0, [])])
def test_an_arm_that_earns_less_leaves(desk: Desk, earned: float, kinds: list[str]) -> None:
    beside(desk, "arm")
    orders = [(f"o{place}", f"u{place}", (place + 1) / 100, 1 + place % 2) for place in range(2000)]
    answered(desk, *orders)
    values = ((name, 20.0 if who == 1 else earned, START + (at + 1) * HOUR) for name, _, at, who in orders)
    came(desk, "revenue", *values)
    at = pl.Series([START + DAY] * 2000, dtype=pl.Datetime("us", "UTC"))
    truth = pl.DataFrame({"entity": [name for name, *_ in orders], "label": [False, True] * 1000, "at": at})
    LabelTable(desk.orrery.lake, "toy").append(truth)
    found, moved, why = compared(desk, 4)
    assert moved == kinds and found.data["rows"] == 2000
    assert ("revenue is proven worse by" in why) == bool(kinds) == ("revenue is proven worse by" in found.why)


@pytest.mark.parametrize(
    ("earned", "guarded", "days", "kinds"),
    [
        (2.0, True, 3, ["retired"]),
        (20.0, True, 3, ["promoted", "challenged"]),
        (20.0, True, 1, []),  # what the first answers bring is not known yet
        (2.0, False, 1, ["promoted", "challenged"]),  # the control: nobody asks what it brings
    ],
)
def test_a_canary_that_earns_less_leaves(desk: Desk, earned: float, guarded: bool, days: int, kinds: list[str]) -> None:
    told = CANARY if guarded else {**CANARY, "rollout": {**CANARY["rollout"], "business": {}}}
    spec = specs.to_dict(specs.from_dict(told))
    commit = {"commit": "def", "message": "m", "author": "ann", "spec": spec}
    desk.orrery.append([Draft(kind="pushed", model="toy", actor="ann", why="because", data=commit)])
    beside(desk, "canary", "def")
    orders = [(f"o{place}", f"u{place}", (place + 1) / 100, 1 + place % 2) for place in range(2000)]
    answered(desk, *orders, role="canary")
    came(
        desk,
        "revenue",
        *((name, 20.0 if who == 1 else earned, START + (at + 1) * HOUR) for name, _, at, who in orders),
    )
    found, moved, why = compared(desk, days)
    assert moved == kinds and found.data["service"]["requests"] == 1000
    assert ("revenue is proven worse by" in why) == (kinds == ["retired"]) == ("revenue is proven worse" in found.why)


@pytest.mark.parametrize(("sold", "kinds"), [(200_000.0, ["rolled_back", "retired"]), (700_000.0, [])])
def test_days_that_are_worse_bring_the_former_champion_back(desk: Desk, sold: float, kinds: list[str]) -> None:
    beside(desk, "guard")
    days = [(START + place * DAY, 700_000.0 if place <= 0 else sold) for place in range(-28, 15)]
    for place, (day, value) in enumerate(days):
        came(desk, "sales", (f"{day:%Y-%m-%d}", value * (1.0 + 0.05 * (place % 3 - 1)), day + DAY))
    found, moved, why = compared(desk, 14)
    assert moved == kinds and ("sales" in why) == bool(kinds)
    assert "sales" in found.why  # a look quotes the days whatever they say
    if kinds:
        assert "Days, not versions, were compared" in why and desk.orrery.model("toy").lane("production").champion == 1


def shadowed(desk: Desk, day: int, users: list[str]) -> None:
    """Log a request of each user on a day; version 2, in shadow, is nearer to what came of it than version 1 is."""
    count = len(users)
    at = pl.Series([START + day * DAY + HOUR] * count * 2, dtype=pl.Datetime("us", "UTC"))
    names = [f"d{day}-{user}" for user in users]
    frame = pl.DataFrame(
        {
            "_id": names * 2,
            "_at": at,
            "_environment": ["production"] * count * 2,
            "_version": pl.Series([1] * count + [2] * count, dtype=pl.Int32),
            "_role": ["champion"] * count + ["shadow"] * count,
            "_entity": names * 2,
            "_output": [[0.5]] * count + [[0.9]] * count,
            "user": users * 2,
        }
    )
    PredictionLog(desk.orrery.lake, "toy").append(frame)
    truth = pl.DataFrame({"entity": names, "label": [True] * count, "at": at[:count] + HOUR})
    LabelTable(desk.orrery.lake, "toy").append(truth)


@pytest.mark.parametrize(("later", "grows"), [("same", False), ("others", True)])
def test_who_comes_back_beside_the_champion_is_no_new_unit(desk: Desk, later: str, grows: bool) -> None:
    rollout = {"unit": "user", "primary": "brier"}
    model = {**SPEC["model"], "label_delay": "1h"}
    policy = specs.to_dict(specs.from_dict({**SPEC, "model": model, "rollout": rollout}))
    commit = {"commit": "def", "message": "m", "author": "ann", "spec": policy}
    desk.orrery.append([Draft(kind="pushed", model="toy", actor="ann", why="because", data=commit)])
    beside(desk, "shadow", commit="def")
    shadowed(desk, 0, [f"u{place}" for place in range(20)])
    shadowed(desk, 1, [f"{'u' if later == 'same' else 'v'}{place}" for place in range(20)])
    found = []
    for day in (0, 1):
        args = {"since": format_instant(START + day * DAY), "until": format_instant(START + (day + 1) * DAY)}
        action = Action(key=f"c{day}", kind="compare", model="toy", version=2, environment="production", args=args)
        (draft,) = compare(desk, desk.orrery.model("toy"), action)
        desk.orrery.append([draft])
        found.append(draft.data["evidence"])
    assert found[0] > 1 and (found[1] > found[0]) == grows, found
