"""The loop in a world that obeys: every action ends as its event, people and monitors do as they please."""

from __future__ import annotations

import contextlib
import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.app import Orrery
from orrery.errors import NotAllowed, NotFound
from orrery.loop import decide
from orrery.review import commands as review
from orrery.rollout import moves
from orrery.rollout.compare import level_of
from orrery.testing.world import PROJECT, START, World
from orrery.timeline.event import Draft
from orrery.timeline.fold import fold
from orrery.timeline.state import ModelState
from orrery.types import format_instant


def kinds(world: World, *names: str) -> list[tuple[str, int | None]]:
    return [(event.kind, event.version) for event in world.events if event.kind in names]


def test_a_push_becomes_a_champion_after_a_persons_yes() -> None:
    world = World()
    world.add_data(3)
    world.push("aaa")
    world.settle()
    assert world.model.versions[1].data == {"tides": 3}
    assert [(one.number, place, role) for one, place, role in world.model.waiting()] == [(1, "production", "quality")]
    assert world.model.lane("staging").champion == 1 and world.model.lane("production").champion is None
    world.approve(1)
    world.settle()
    assert world.model.lane("production").champion == 1
    assert "looks right" in world.model.lane("production").why


def test_a_push_before_its_data_waits_and_says_so() -> None:
    world = World()
    world.push("aaa")
    world.settle()
    assert "Waits for the dataset tides" in world.model.commits["aaa"].waiting
    world.add_data(1)
    world.settle()
    assert 1 in world.model.versions


def test_a_refused_version_goes_nowhere_until_somebody_overrides() -> None:
    world = World(refuse={1})
    world.add_data(1)
    world.push("aaa")
    world.settle()
    assert not world.model.lanes
    with pytest.raises(NotAllowed, match="refused"):
        world.approve(1)
    world.append(review.approve(world.model, 1, why="known flaw", actor="mara", gate="absolute_error"))
    world.settle()
    assert world.model.lane("staging").champion == 1


def test_a_rejection_opens_an_issue_and_ends_the_way() -> None:
    world = World()
    world.add_data(1)
    world.push("aaa")
    world.settle()
    world.append(review.reject(world.model, 1, why="not fair to small harbours", actor="mara"))
    world.settle()
    assert world.model.lane("production").champion is None and not world.model.waiting()
    (issue,) = world.model.issues.values()
    assert issue.owner == "nora" and "small harbours" in issue.title
    with pytest.raises(NotAllowed):
        world.approve(1)


def test_issues_close_when_their_cause_is_gone() -> None:
    world = World(refuse={2})
    world.first_champion()
    world.push("bbb")
    world.settle()
    facts = {"issue": "x", "title": "refused", "owner": "nora"}
    draft = Draft(kind="issue_opened", actor="orrery/gates", why="refused", model="tides", version=2, data=facts)
    world.append([draft])
    world.pass_days(2)
    assert world.model.issues["x"].closed is None
    world.alarm(answer="refresh")
    world.settle()
    assert world.model.issues["x"].closed is not None
    assert [event.why for event in world.events if event.kind == "issue_closed"] == ["Version 3 took over since."]


def test_new_code_is_proven_in_shadow_and_the_loser_guards() -> None:
    world = World()
    world.first_champion()
    world.push("bbb")
    world.settle()
    world.approve(2)
    world.settle()
    lane = world.model.lane("production")
    assert lane.champion == 1 and lane.challengers[2].role == "shadow"
    world.pass_days(5)
    assert lane.champion == 1
    world.verdicts[2] = "promote"
    world.pass_days(1)
    assert lane.champion == 2 and lane.challengers[1].role == "guard"
    world.verdicts.clear()
    world.pass_days(15)
    assert not lane.challengers and lane.champion == 2


def test_who_stands_guard_can_be_promoted_by_hand() -> None:
    """It ends its guard, and answers; the one that it relieves goes on guard in its place."""
    world = World()
    world.first_champion()
    world.push("bbb")
    world.settle()
    world.approve(2)
    world.settle()
    for number, other in ((2, 1), (1, 2), (2, 1)):
        world.append(moves.order_promotion(world.model, number, "production", "by hand", "li", world.now))
        world.settle()
        lane = world.model.lane("production")
        assert lane.champion == number
        assert {one.version: one.role for one in lane.challengers.values()} == {other: "guard"}


CANARY = (
    PROJECT
    + """
[rollout.probation]
requests = 100
time = "1h"
[rollout.redesign]
shadow = false
canary = ["5%", "25%", "100%"]
"""
)
KEPT = {"requests": 120, "failures": 0, "latency": 1.1, "agreement": 0.98, "breach": ""}


def canary(project: str = CANARY) -> World:
    """Return a world with a canary at its first share."""
    world = World()
    world.add_data(1)
    world.push("aaa", project)
    world.settle()
    world.approve(1)
    world.settle()
    world.push("bbb", project)
    world.settle()
    world.approve(2)
    world.settle()
    return world


def test_a_canary_grows_in_steps_and_becomes_champion() -> None:
    world = canary()
    lane = world.model.lane("production")
    assert (lane.champion, lane.challengers[2].role, lane.challengers[2].share) == (1, "canary", 0.05)
    world.pass_hours(3)
    assert lane.challengers[2].share == 0.05, "nobody asked: it stays where it is"
    world.services[2] = KEPT
    world.pass_hours(2)
    assert (lane.champion, lane.challengers[2].share) == (1, 0.25)
    (shift,) = (event for event in world.events if event.kind == "shifted")
    assert shift.why == (
        "At 5 %: 120 requests, 0 failures, median latency 1.1 times the champion's, 98 % of the answers are the "
        "champion's. Next step: 25 %."
    )
    world.pass_hours(3)
    assert lane.champion == 2 and "The canary kept every limit. At 25 %" in lane.why
    assert lane.challengers[1].role == "guard"


def test_a_canary_that_breaks_a_limit_is_taken_back_for_good() -> None:
    world = canary()
    world.services[2] = KEPT | {"breach": "it failed on 9 of 120 requests (limit 1 %)"}
    world.pass_hours(2)
    lane = world.model.lane("production")
    assert lane.champion == 1 and not lane.challengers
    assert "Taken back: it failed on 9 of 120 requests" in world.model.versions[2].left["production"]
    assert [issue.owner for issue in world.model.issues.values()] == ["nora"]
    world.services.clear()
    world.pass_days(5)
    assert lane.champion == 1 and not lane.challengers


def test_labels_end_a_canary_that_is_proven_worse() -> None:
    world = canary()
    world.services[2], world.verdicts[2] = KEPT, "abort"
    world.pass_hours(2)
    assert "proven worse" in world.model.versions[2].left["production"]


def test_one_canary_at_a_time_and_a_share_by_hand_does_not_grow() -> None:
    world = canary()
    lane = world.model.lane("production")
    world.push("ccc", CANARY)
    world.settle()
    world.approve(3)
    world.settle()
    assert list(lane.challengers) == [2]
    with pytest.raises(NotAllowed, match="Version 2 answers a share"):
        moves.order_share(world.model, 3, "production", 0.1, "why", "li", world.now)
    world.append(moves.order_retirement(world.model, 2, "production", "not today", "li"))
    world.append(moves.order_share(world.model, 3, "production", 0.1, "let us see", "li", world.now))
    world.services[3] = KEPT
    world.pass_days(3)
    assert (lane.champion, lane.challengers[3].share) == (1, 0.1)
    world.append(moves.order_share(world.model, 3, "production", 0.5, "more", "li", world.now))
    assert lane.challengers[3].share == 0.5
    world.append(moves.order_promotion(world.model, 3, "production", "good", "li", world.now))
    assert lane.champion == 3


def test_a_proof_may_be_followed_by_a_canary() -> None:
    world = canary(CANARY.replace("shadow = false", "shadow = true"))
    lane = world.model.lane("production")
    assert lane.challengers[2].role == "shadow"
    world.verdicts[2] = "promote"
    world.pass_days(2)
    assert (lane.champion, lane.challengers[2].role, lane.challengers[2].share) == (1, "canary", 0.05)
    world.services[2] = KEPT
    world.pass_days(2)
    assert lane.champion == 2


def test_an_arm_is_promoted_on_proof_alone() -> None:
    world = canary(PROJECT + """[rollout]\nsticky = "harbour"\n[rollout.redesign]\nab = "50%"\n""")
    lane = world.model.lane("production")
    arm = lane.challengers[2]
    assert (arm.role, arm.share, arm.unit) == ("arm", 0.5, "harbour")
    world.services[2] = KEPT
    world.pass_days(3)
    assert lane.champion == 1
    world.verdicts[2] = "promote"
    world.pass_days(2)
    assert lane.champion == 2 and "Proven better" in lane.why


def test_each_further_challenger_needs_more_evidence_and_a_proof_lowers_what_is_needed() -> None:
    def needed() -> list[float]:
        lane, policy = world.model.lane("production"), world.model.policy()
        assert policy is not None
        return [round(1 / level_of(one, policy)) for one in lane.challengers.values() if one.role == "shadow"]

    world = World()
    world.first_champion()
    trials = []
    for number, verdict in ((2, "abort"), (3, "promote"), (4, "undecided")):
        world.push(f"{number}" * 3)
        world.settle()
        world.approve(number)
        world.settle()
        trials.append(needed()[0])
        world.verdicts[number] = verdict
        world.pass_days(8)
        world.verdicts.clear()
    assert trials == [40, 120, 120]  # the third trial after one proof: 240 / 2
    said = [event.why for event in world.events if event.kind == "challenged" and event.data["role"] == "shadow"]
    assert "Trial 3 here, 1 won: its evidence counts from 120 on." in said[2]
    assert world.model.lane("production").champion == 3
    world.append(moves.order_rollback(world.model, "production", None, "by hand", "li"))
    assert needed() == [200]  # against another champion it is another trial, the fourth: 400 / 2


def test_proof_against_a_challenger_ends_it() -> None:
    world = World()
    world.first_champion()
    world.push("bbb")
    world.settle()
    world.approve(2)
    world.settle()
    world.verdicts[2] = "abort"
    world.pass_days(2)
    assert world.model.lane("production").champion == 1 and "proven worse" in world.model.versions[2].left["production"]


def test_an_undecided_challenger_ends_with_its_time() -> None:
    world = World()
    world.first_champion()
    world.push("bbb")
    world.settle()
    world.approve(2)
    world.pass_days(62)
    assert "Undecided" in world.model.versions[2].left["production"]


def test_an_alarm_is_repaired_first_then_answered_by_training() -> None:
    world = World()
    world.first_champion()
    world.pass_days(3)
    world.alarm()
    world.settle()
    assert world.model.lane("production").champion == 2 and world.model.versions[2].change == "repair"
    assert "By policy 'repair', approved by mara" in world.model.lane("production").why
    world.pass_days(3)
    world.alarm()
    world.settle()
    assert world.model.versions[3].change == "refresh" and world.model.lane("production").champion == 3


def test_a_former_champion_that_proves_better_comes_back() -> None:
    world = World()
    world.first_champion()
    world.pass_days(3)
    world.alarm(answer="refresh")
    world.settle()
    lane = world.model.lane("production")
    assert lane.champion == 2 and lane.challengers[1].role == "guard"
    world.verdicts[1] = "promote"
    world.pass_days(2)
    assert lane.champion == 1 and not lane.challengers
    assert kinds(world, "rolled_back") == [("rolled_back", 1)]
    assert "proven better" in lane.why


def decayed(world: World, excess: float, losses: int = 100) -> None:
    world.alarm(monitor="decay", reason="decay", answer="refresh", excess=excess, losses=losses)
    world.settle()


def looked(world: World, rows: int, excess: float) -> None:
    """A day passes, with a look that found so many requests, and so much above what was promised."""
    world.seen = {"rows": rows, "monitors": {"decay": {"excess": excess, "losses": 100}}}
    world.pass_days(1)


DEAR = PROJECT.replace("[triggers]", "[triggers]\ncost = { error = 0.01, training_cpu_hour = 600.0 }")
"""A training of the world takes a minute: ten euros. Ten euros a month are 1,000 losses."""


def test_a_decay_is_trained_for_when_it_costs_more_than_a_training() -> None:
    world = World()
    world.first_champion(DEAR)
    looked(world, 300, 0.0)
    decayed(world, 0.05)  # 300 answers a day, 30 days: 450 losses
    assert len(world.model.runs) == 1 and world.model.lane("production").alarms["decay"]["excess"] == 0.05
    (note,) = [event for event in world.events if event.kind == "not_triggered"]
    assert "over 9,000 answers in 30 days at 0.01 EUR that is 4.5 EUR. A training costs 10 EUR" in note.why
    assert note.why.endswith("it does not pay.")
    looked(world, 300, 0.11)  # 0.08 on average since the alarm: 720 losses, and no second note
    assert len(world.model.runs) == 1
    looked(world, 300, 0.32)  # 0.16: 1,440 losses
    (run,) = [run for run in world.model.runs.values() if run.reason == "decay"]
    assert "by 0.16 (300 answers)" in run.why and "14.4 EUR" in run.why and run.why.endswith("it pays.")
    triggered = next(event for event in world.events if event.kind == "triggered" and event.data["run"] == run.id)
    assert triggered.data["evidence"]["worth"]["daily"] == 300
    assert len([event for event in world.events if event.kind == "not_triggered"]) == 1


def test_more_answers_make_the_same_decay_worth_a_training() -> None:
    world = World()
    world.first_champion(DEAR)
    looked(world, 700, 0.0)
    decayed(world, 0.05)
    assert [run.reason for run in world.model.runs.values()] == ["push", "decay"]


@pytest.mark.parametrize(
    ("project", "facts"),
    [
        (DEAR.replace("[triggers]", "[triggers]\nweigh = false"), {"excess": 0.001, "losses": 50}),
        (DEAR, {}),  # an alarm of a log from before losses were noted
        (DEAR, {"excess": 0.001, "losses": 50, "reason": "drift"}),
        (PROJECT, {"excess": 0.05, "losses": 50}),  # a training costs next to nothing by default
    ],
)
def test_what_is_not_weighed_trains_at_once(project: str, facts: dict[str, Any]) -> None:
    """Negative control: the same alarm, where nothing is weighed or next to nothing is to be paid."""
    world = World()
    world.first_champion(project)
    looked(world, 300, 0.0)
    world.alarm(**{"monitor": "decay", "reason": "decay", "answer": "refresh", **facts})
    world.settle()
    assert len(world.model.runs) == 2


def test_a_storm_of_alarms_starts_one_training_in_the_cooldown() -> None:
    world = World(refuse={2, 3, 4, 5, 6})
    world.first_champion()
    for number in range(10):
        world.alarm(monitor=f"m{number}", answer="refresh")
    world.settle()
    assert len(world.model.runs) == 2
    assert any(event.kind == "not_triggered" and "cooldown" in event.why for event in world.events)


def test_an_alarm_that_pulls_no_trigger_trains_only_where_the_project_names_its_monitor() -> None:
    for named in (False, True):
        world = World()
        world.first_champion(PROJECT.replace("[triggers]", '[triggers]\nmonitors = ["segments"]') if named else PROJECT)
        world.pass_days(3)
        world.alarm(monitor="segments", answer="refresh", trains=False)
        world.settle()
        assert len(world.model.versions) == 1 + named
        assert (kinds(world, "triggered")[1:] != []) is named


def test_the_budget_holds_trainings_back() -> None:
    world = World(refuse=set(range(2, 50)))
    world.first_champion()
    world.alarm(answer="refresh")
    world.pass_days(28)
    automatic = [run for run in world.model.runs.values() if run.reason == "drift"]
    assert len(automatic) == 4
    assert any(event.kind == "not_triggered" and "budget" in event.why for event in world.events)


def test_the_schedule_trains_once_a_month() -> None:
    world = World()
    world.first_champion()
    world.pass_days(95)
    assert [run.at.day for run in world.model.runs.values() if run.reason == "schedule"] == [1, 1, 1]


def test_new_data_are_probed_once_and_not_again_before_the_cooldown() -> None:
    def probes() -> int:
        return sum(key.startswith("probe:") for key in world.done)

    world = World()
    world.first_champion(PROJECT.replace('schedule = "0 0 1 * *"\ncooldown = "2d"', 'data = true\ncooldown = "7d"'))
    world.pass_days(8)
    assert probes() == 0  # nothing new
    world.add_data(2)
    world.settle()
    assert probes() == 1 and "data:" in str(world.model.held)
    for version in range(3, 9):
        world.add_data(version)
        world.pass_days(1)
    assert probes() == 1
    world.pass_days(1)
    assert probes() == 2  # all that came meanwhile, at once
    world.pass_days(20)
    assert probes() == 2 and len(world.model.versions) == 1


def test_time_that_was_slept_through_is_one_look() -> None:
    world = World()
    world.first_champion()
    world.now += timedelta(days=10)
    world.settle()
    assert kinds(world, "watched") == [("watched", 1)]


def test_orders_that_the_state_forbids_say_why() -> None:
    world = World()
    world.first_champion()
    now = world.now
    with pytest.raises(NotAllowed, match="no earlier champion"):
        moves.order_rollback(world.model, "production", None, "why", "li")
    with pytest.raises(NotAllowed, match="in use"):
        moves.order_deletion(world.model, 1, "why", "li")
    with pytest.raises(NotFound, match="no version 9"):
        moves.order_promotion(world.model, 9, "production", "why", "li", now)
    world.push("bbb")
    world.settle()
    with pytest.raises(NotAllowed, match="review:quality"):
        moves.order_promotion(world.model, 2, "production", "why", "li", now)


def test_deleted_versions_keep_their_record() -> None:
    world = World()
    world.first_champion()
    world.push("bbb")
    world.settle()
    world.approve(2)
    world.settle()
    world.verdicts[2] = "promote"
    world.pass_days(20)
    world.append(moves.order_deletion(world.model, 1, "trained on the Celsius feed", "li"))
    world.settle()
    assert world.model.versions[1].deleted["why"] == "trained on the Celsius feed"  # type: ignore[index]
    assert world.model.lane("production").tenures[0][0] == 1
    with pytest.raises(NotAllowed):
        moves.order_rollback(world.model, "production", 1, "why", "li")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_whatever_happens_the_loop_settles_and_a_replay_gives_the_same_state(seed: int) -> None:
    """Random people, monitors, verdicts and crashes: invariants hold and the fold depends on the events alone."""
    rng = random.Random(seed)
    world = World(refuse={number for number in range(2, 60) if rng.random() < 0.3})
    project = rng.choice([PROJECT, CANARY, CANARY.replace("shadow = false", "shadow = true")])
    world.first_champion(project)
    for step in range(25):
        match rng.randrange(8):
            case 0:
                world.push(f"c{step}", project)
            case 1:
                world.add_data(step + 2)
            case 2:
                world.alarm(
                    monitor=rng.choice(["features", "decay", "calibration"]), answer=rng.choice(["repair", "refresh"])
                )
            case 3:
                world.verdicts = {number: rng.choice(["promote", "abort", "undecided"]) for number in range(60)}
                world.services = {number: rng.choice([{}, KEPT, KEPT | {"breach": "slow"}]) for number in range(60)}
            case 4:
                for version, _, _ in world.model.waiting():
                    order = review.approve if rng.random() < 0.7 else review.reject
                    world.append(order(world.model, version.number, why="so", actor="mara"))
            case 5:
                with contextlib.suppress(NotAllowed):
                    world.append(moves.order_rollback(world.model, "production", None, "felt like it", "li"))
            case _:
                world.now += timedelta(days=rng.randrange(1, 9))
        if rng.random() < 0.5:  # a crash between two actions: what is due follows from the events
            due = decide(world.model, world.data, world.now)
            if due:
                world.do(due[0])
            world.model = fold(ModelState(name="tides"), [event for event in world.events if event.model])
        world.settle()
        lane = world.model.lane("production")
        assert lane.champion is not None and lane.champion not in lane.challengers
        assert sum(end is None for _, _, end in lane.tenures) == 1
        replayed = fold(ModelState(name="tides"), [event for event in world.events if event.model])
        assert msgspec.msgpack.encode(replayed) == msgspec.msgpack.encode(world.model)


def test_folded_states_are_stored_and_equal_the_replay(home: Any) -> None:
    world = World()
    world.first_champion()
    world.pass_days(60)
    orrery = Orrery(home)
    drafts = [Draft(**{name: getattr(event, name) for name in Draft.__struct_fields__}) for event in world.events]
    for start in range(0, len(drafts), 50):
        orrery.append(drafts[start : start + 50])
        orrery.model("tides")
        orrery.states.data()
    orrery.append([msgspec.structs.replace(drafts[-1], id=f"again-{n}", kind="business") for n in range(300)])
    incremental = msgspec.msgpack.encode(orrery.model("tides"))
    fresh = Orrery(home)
    assert msgspec.msgpack.encode(fresh.model("tides")) == incremental  # from the stored state and the tail
    fresh.states.rebuild()
    assert msgspec.msgpack.encode(fresh.model("tides")) == incremental  # from the first event
    at = fresh.states.at("tides", START + timedelta(days=10))
    assert at.lane("production").champion == 1 and format_instant(at.lane("production").since) == format_instant(START)  # type: ignore[arg-type]
    for one in (orrery, fresh):
        one.timeline.engine.dispose()
