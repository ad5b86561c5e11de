"""What every trigger must hold: it fires, it is quiet, and no storm of causes starts more than the policy lets.

A :class:`Pull` says how a test brings the cause of a trigger about; :func:`check_trigger` plays it to the loop in a
:class:`~orrery.testing.world.World`. No gate lets a version through there, so every cause stays.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import msgspec

from orrery.testing.world import PROJECT, World
from orrery.timeline.state import Run

QUIET = 5
"""Days on which nothing happens: the world begins on a Tuesday."""
STORM = 10
DAY, COOLDOWN, MONTH = timedelta(days=1), timedelta(days=10), timedelta(days=30)
LIMITS = frozenset(("cooldown", "budget"))
NEVER_HELD: frozenset[str] = frozenset()


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """How a trigger is pulled, and what follows.

    Parameters
    ----------
    reason, change : of the training that it starts.
    pull : brings its cause about, once more each time it is called; time may pass in it.
    on : lines of ``[triggers]`` that switch it on.
    off : lines that switch it off; None for one that is always on: a person's order, or push.
    held : rules of the policy that hold it back.
    merges : whether many causes at once are answered by one training.
    """

    reason: str
    change: str
    pull: Callable[[World], None]
    on: str = ""
    off: str | None = ""
    held: frozenset[str] = LIMITS
    merges: bool = True


def check_trigger(one: Pull) -> None:
    """Check one trigger; takes about a second.

    Raises
    ------
    AssertionError
        If it breaks an obligation; the message says which.
    """
    _is_quiet(one)
    _fires(one)
    _is_off(one)
    _weathers_a_storm(one)
    _waits_for_the_cooldown(one)
    _keeps_the_budget(one)


def _world(lines: str, cooldown: str = "12h", trainings: int = 1000) -> World:
    """Return a world with a champion whose successors the gates all refuse."""
    head = PROJECT.partition("[triggers]")[0].replace('"regression"', '"binary"')
    limits = f'cooldown = "{cooldown}"\nbudget = {{ trainings_per_month = {trainings} }}'
    world = World(refuse=set(range(2, 200)), pays=True)
    world.first_champion(f'{head}[triggers]\n{lines}\n{limits}\n[monitors]\nevery = "1d"\n')
    return world


def _runs(world: World, one: Pull) -> list[Run]:
    """Return the trainings of its reason since a champion answers: what that begins with is none of its doing."""
    since = list(world.model.runs.values())[world.begun :]
    return [run for run in since if (run.reason, run.change) == (one.reason, one.change)]


def _pulled(world: World, one: Pull) -> list[Run]:
    one.pull(world)
    world.settle()
    return _runs(world, one)


def _held(world: World, rule: str) -> list[str]:
    notes = [event for event in world.events if event.kind == "not_triggered"]
    return [note.why for note in notes if note.data["cause"].endswith(f"/{rule}") and note.data["until"]]


def _is_quiet(one: Pull) -> None:
    world = _world(one.on)
    world.pass_days(QUIET)
    since = [run.why for run in world.model.runs.values()][world.begun :]
    assert not since, f"it fires although nothing happened: {since[0]}"


def _fires(one: Pull) -> None:
    world = _world(one.on)
    found = _pulled(world, one)
    assert len(found) == 1, f"{len(found)} trainings of one cause, which is {one.reason}"
    assert found[0].why and found[0].mark and found[0].data, "a training says why, of which cause, and on which data"
    assert not found[0].open and world.model.versions[world.begun + 1].run == found[0].id, "it became no training"


def _is_off(one: Pull) -> None:
    if one.off is None:
        return
    world = _world(one.off)
    assert not _pulled(world, one) and len(world.model.runs) == world.begun, (
        "it fires where the project does not want it"
    )


def _weathers_a_storm(one: Pull) -> None:
    """Many causes before anybody could answer the first: one training, and each training by itself."""
    world = _world(one.on, cooldown="10d")
    for _ in range(STORM):
        one.pull(world)
    world.settle()
    found = _runs(world, one)
    assert len(found) == (1 if one.merges else STORM), f"{STORM} causes started {len(found)} trainings"
    assert len({run.mark for run in found}) == len(found), "two trainings of one cause"


def _waits_for_the_cooldown(one: Pull) -> None:
    world = _world(one.on, cooldown="10d")
    if "cooldown" not in one.held:
        world.alarm(monitor="other", answer="refresh")
        world.settle()
        assert len(world.model.runs) == world.begun + 1
        assert len(_pulled(world, one)) == 1, "the cooldown holds it back, and should not"
        return
    (first,) = _pulled(world, one)
    world.now += DAY
    assert len(_pulled(world, one)) == 1, "it fires within the cooldown"
    (note,) = _held(world, "cooldown")[:1] or [""]
    assert "Held back: " in note and "cooldown 10d" in note, "it is held back, and nothing says so"
    while world.now < first.at + COOLDOWN:
        assert len(_runs(world, one)) == 1, "it fires within the cooldown"
        world.pass_days(1)
    assert len(_pulled(world, one)) == 2, "what was held back is forgotten after the cooldown"


def _keeps_the_budget(one: Pull) -> None:
    world = _world(one.on, trainings=1 if "budget" in one.held else 0)
    if "budget" not in one.held:
        assert len(_pulled(world, one)) == 1, "the budget holds it back, and should not"
        return
    (first,) = _pulled(world, one)
    world.now += DAY
    assert len(_pulled(world, one)) == 1, "it spends more than the budget"
    (note,) = _held(world, "budget")[:1] or [""]
    assert "budget 1" in note, "it is held back, and nothing says so"
    while world.now < first.at + MONTH:
        assert len(_runs(world, one)) == 1, "it spends more than the budget"
        world.pass_days(1)
    assert len(_pulled(world, one)) == 2, "what was held back is forgotten in the next month"
