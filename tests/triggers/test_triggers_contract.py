"""Every trigger passes the shipped suite by existing, and the suite fails those that do not keep their word."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, get_args

import msgspec
import pytest

from orrery.loop import decide
from orrery.monitors.monitor import Finding, Monitor
from orrery.monitors.watch import MONITORS
from orrery.testing.monitor_contract import Simulated
from orrery.testing.trigger_contract import NEVER_HELD, STORM, Pull, check_trigger
from orrery.testing.world import PROJECT, World
from orrery.triggers import due
from orrery.types import Reason

COMMITS = itertools.count(1)


def finding_of(kind: type[Monitor]) -> Finding:
    world = Simulated(0)
    return kind.resume(world.view(), {}).look(world.view())


def alarm_of(kind: type[Monitor]) -> Pull:
    """An alarm as its monitor raises it: by itself where that trains, else where the project names it."""
    found = finding_of(kind)
    facts = {"monitor": kind.name, "reason": found.reason, "answer": found.answer, "trains": found.trains}
    switch = "" if kind.trains else f'monitors = ["{kind.name}"]'
    return Pull(
        reason=found.reason,
        change=found.answer,
        pull=lambda world: world.alarm(**facts),
        on=switch,
        off=f"{found.reason} = false" if kind.trains else "",
        held=NEVER_HELD if found.answer == "repair" else frozenset(("cooldown", "budget")),
    )


def next_monday(world: World) -> None:
    world.now += timedelta(days=7 - world.now.weekday())
    world.settle()


def a_week(world: World) -> None:
    world.now += timedelta(days=7)
    world.settle()


def more_data(world: World) -> None:
    world.add_data(world.data.datasets["tides"].version + 1)


def push(world: World) -> None:
    world.push(f"c{next(COMMITS)}")


def binary(lines: str) -> str:
    head = PROJECT.partition("[triggers]")[0].replace('"regression"', '"binary"')
    return f"{head}[triggers]\n{lines}\n"


ALARMS = {kind.name: alarm_of(kind) for kind in MONITORS}
OTHERS = {
    "push": Pull(reason="push", change="redesign", pull=push, off=None, held=NEVER_HELD, merges=False),
    "hand": Pull(reason="hand", change="refresh", pull=World.train, off=None, held=NEVER_HELD, merges=False),
    "schedule": Pull(
        reason="schedule",
        change="refresh",
        pull=next_monday,
        on='schedule = "0 0 * * 1"',
        held=frozenset(("budget",)),
        merges=False,
    ),
    "upkeep": Pull(reason="schedule", change="repair", pull=a_week, on='upkeep = "7d"', held=NEVER_HELD, merges=False),
    "erasure": Pull(reason="erasure", change="refresh", pull=World.erase, off="erasure = false"),
    "data": Pull(reason="data", change="refresh", pull=more_data, on="data = true"),
}
PULLS = {f"monitor {name}": one for name, one in ALARMS.items()} | OTHERS


@pytest.mark.parametrize("name", PULLS)
def test_it_holds_what_a_trigger_must(name: str) -> None:
    check_trigger(PULLS[name])


def test_no_reason_and_no_cause_is_without_a_case() -> None:
    assert {one.reason for one in PULLS.values()} == set(get_args(Reason))
    assert set(due.CAUSES) == {"alarms", *OTHERS} - {"push", "hand", "data"}


@pytest.mark.parametrize(("lines", "change"), [('schedule = "0 0 * * 1"', "refresh"), ('upkeep = "7d"', "repair")])
def test_time_that_was_slept_through_is_one_training(lines: str, change: str) -> None:
    """The suite pulls these two one after the other; here nobody is awake for ten weeks."""
    world = World(refuse=set(range(2, 50)))
    world.first_champion(binary(lines))
    before = len(world.model.runs)
    world.now += timedelta(days=70)
    world.settle()
    assert [run.change for run in list(world.model.runs.values())[before:]] == [change]


def test_a_commit_that_comes_again_is_no_other_push() -> None:
    world = World()
    world.first_champion()
    push(world)
    world.settle()
    before = len(world.model.runs)
    again = next(event for event in reversed(world.events) if event.kind == "pushed")
    world.append([due.Draft(kind="pushed", actor="ann", why="again", model="tides", data=again.data, id="again")])
    world.settle()
    assert before == 2 == len(world.model.runs)


def test_a_storm_of_all_triggers_at_once_starts_one_training_and_nothing_beside_a_running_one() -> None:
    lines = ['schedule = "0 0 * * 1"', "data = true", 'cooldown = "10d"', f"monitors = {list(ALARMS)}"]
    world = World(refuse=set(range(2, 50)), pays=True)
    world.first_champion(binary("\n".join(lines).replace("'", '"')))
    for _ in range(STORM):
        for name, one in PULLS.items():
            if one.merges and one.change == "refresh" and name != "data":
                one.pull(world)
    more_data(world)
    most = 0
    while actions := decide(world.model, world.data, world.now):
        world.do(actions[0])
        most = max(most, sum(run.open for run in world.model.runs.values()))
    assert most == 1 and len(world.model.runs) == 2
    notes = [event.why for event in world.events if event.kind == "not_triggered"]
    assert len(notes) == len({*notes}) >= len(ALARMS) - 2, "each cause is noted once"


def test_by_hand_neither_waits_for_the_cooldown_nor_begins_one() -> None:
    world = World(refuse={2, 3})
    world.first_champion()
    world.train()
    world.settle()
    world.alarm(answer="refresh")
    world.settle()
    assert [run.reason for run in world.model.runs.values()] == ["push", "hand", "drift"]


# --- the suite finds what does not keep its word -------------------------------------------------------------------


def without(rule: str) -> Callable[..., Any]:
    """A policy that forgets one of its rules."""
    whole = due._held_back

    def held(*about: Any) -> Any:
        found = whole(*about)
        return None if found is not None and found[0] == rule else found

    return held


def forgetful(*about: Any) -> Iterator[Any]:
    return iter(())


@pytest.mark.parametrize(
    ("broken", "with_what", "complaint"),
    [
        ("_held_back", without("cooldown"), "does not settle"),  # it trains for the same cause without end
        ("_held_back", without("budget"), "spends more"),
        ("_note", forgetful, "nothing says so"),
        ("_busy", lambda _: True, "0 trainings"),
    ],
)
def test_the_suite_finds_a_policy_that_does_not(
    broken: str, with_what: Any, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_trigger(OTHERS["erasure"])
    monkeypatch.setattr(due, broken, with_what)
    with pytest.raises(AssertionError, match=complaint):
        check_trigger(OTHERS["erasure"])


def test_the_suite_finds_a_trigger_that_cannot_be_switched_off_or_fires_by_itself() -> None:
    with pytest.raises(AssertionError, match="does not want it"):
        check_trigger(msgspec.structs.replace(OTHERS["erasure"], off=""))
    with pytest.raises(AssertionError, match="nothing happened"):
        check_trigger(msgspec.structs.replace(OTHERS["schedule"], on='schedule = "0 0 * * *"'))
    with pytest.raises(AssertionError, match="0 trainings"):
        check_trigger(msgspec.structs.replace(ALARMS["segments"], on=""))
