"""Decides from the state alone whether a training is due, which kind, and whether the policy holds it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import msgspec

from orrery.errors import NotAllowed, NotFound, NotUnderstood
from orrery.spec import Spec
from orrery.timeline.event import Draft
from orrery.timeline.state import Commit, DataState, ModelState, Run, Version
from orrery.triggers.worth import Decayed
from orrery.types import CHANGES, PRODUCTION, digest, format_instant, parse_duration
from orrery.workers.action import Action, record

MONTH = timedelta(days=30)
DATA = "data:"
"""Begins the mark of a training that new data asked for, or would have."""


class Cause(msgspec.Struct, frozen=True):
    """Why a training is due: its reason, the kind of change that answers it, a sentence, what makes it this one."""

    reason: str
    change: str
    why: str
    mark: str
    evidence: dict[str, Any] = {}


def due(model: ModelState, data: DataState, now: datetime) -> Iterator[Action]:
    """Yield the trainings that are due, or the notes that one was held back."""
    for commit in model.commits.values():
        if commit.tested.get("development") and not commit.run and not commit.failed:
            yield from _for_push(model, commit, data)
    champion = model.champion()
    if champion is None or _busy(model):
        return
    policy = model.spec_of(champion.commit)
    for cause in chain.from_iterable(causes(model, champion, policy, now) for causes in CAUSES.values()):
        held = _held_back(model, policy, cause, now)
        worth = None if held else _weighed(model, champion, policy, cause)
        if worth is not None and not worth.pays:
            words = worth.sentence()
            held = "worth", words[0].lower() + words[1:-1], now + parse_duration(policy.monitors.every)
        if held is None:
            yield _trigger(model, model.commits[champion.commit], _with(cause, worth), data)
            return
        yield from _note(model, cause, *held)
    yield from _probes(model, champion, policy, data, now)


def _for_push(model: ModelState, commit: Commit, data: DataState) -> Iterator[Action]:
    missing = [name for name in commit.spec["data"].values() if not _version_of(data, name)]
    if missing:
        if not commit.waiting:
            why = f"Waits for the dataset {missing[0]}: `orrery data add {missing[0]} FILES...` brings it."
            facts = {"cause": f"data:{missing[0]}", "commit": commit.sha, "reason": "push"}
            draft = Draft(kind="not_triggered", actor="orrery/triggers", why=why, model=model.name, data=facts)
            yield record(f"wait:{model.name}:{commit.sha}", draft)
        return
    change = "redesign"
    why = f"{commit.author} pushed {commit.sha[:7]}: {commit.message.splitlines()[0] if commit.message else '-'}"
    yield _trigger(model, commit, Cause("push", change, why, commit.sha), data)


def _alarms(model: ModelState, champion: Version, policy: Spec, now: datetime) -> Iterator[Cause]:
    lane = model.lane(PRODUCTION)
    for name, alarm in sorted(lane.alarms.items(), key=lambda item: item[1]["seq"]):
        reason = alarm.get("reason", "drift")
        wanted = policy.triggers.decay if reason == "decay" else policy.triggers.drift
        if name in policy.triggers.monitors or (wanted and alarm.get("trains", True)):
            change = _answer(model, champion, alarm)
            yield Cause(reason, change, f"{name}: {alarm['why']}", f"{name}:{alarm['seq']}", {"alarm": alarm["seq"]})


def _erasure(model: ModelState, champion: Version, policy: Spec, now: datetime) -> Iterator[Cause]:
    if (erased := model.unlearn.get(model.trained(champion).number)) and policy.triggers.erasure:
        why = f"A subject was erased that version {model.trained(champion).number} learned from."
        yield Cause("erasure", "refresh", why, f"erasure:{erased}", {"event": erased})


def _schedule(model: ModelState, champion: Version, policy: Spec, now: datetime) -> Iterator[Cause]:
    if policy.triggers.schedule:
        from croniter import croniter

        refreshes = [run for run in model.runs.values() if run.reason == "schedule" and run.change == "refresh"]
        last = max((run.at for run in refreshes), default=_began(model))
        planned = croniter(policy.triggers.schedule, last).get_next(datetime)
        if planned <= now:
            why = f"The schedule {policy.triggers.schedule!r} was due at {planned:%Y-%m-%d %H:%M}."
            yield Cause("schedule", "refresh", why, format_instant(planned))


def _upkeep(model: ModelState, champion: Version, policy: Spec, now: datetime) -> Iterator[Cause]:
    """A repair costs no training and is released only where it would change the answers: it is tried in a rhythm."""
    rhythm = parse_duration(policy.triggers.upkeep)
    if not rhythm or policy.model.task != "binary":
        return
    last = max((run.at for run in model.runs.values() if run.change == "repair"), default=None)
    if last is None or now - last >= rhythm:
        why = f"Upkeep of the calibration, every {policy.triggers.upkeep}."
        # Named by the one before: a name that changes with the time is another one at each look.
        yield Cause("schedule", "repair", why, f"upkeep:{format_instant(last) if last else 'first'}")


CAUSES: dict[str, Callable[[ModelState, Version, Spec, datetime], Iterator[Cause]]] = {
    "alarms": _alarms,
    "erasure": _erasure,
    "schedule": _schedule,
    "upkeep": _upkeep,
}
"""What makes a training due while a champion answers, in this order; new data are probed first, a push has none."""


def _probes(model: ModelState, champion: Version, policy: Spec, data: DataState, now: datetime) -> Iterator[Action]:
    """Ask whether new data are worth a training: once for each state of the data, and after the cooldown."""
    if not policy.triggers.data:
        return
    pinned = {name: _version_of(data, name) for name in policy.data.values()}
    trained = _newest_data(model)
    fresh = {name: number for name, number in pinned.items() if number > trained.get(name, 0)}
    mark = f"{DATA}{digest(fresh)}"
    if not fresh or mark in model.held or any(one.mark == mark for one in model.runs.values()):
        return
    words = ", ".join(f"{name} has version {number}" for name, number in fresh.items())
    cause = Cause("data", "refresh", f"New data: {words}.", mark)
    if (held := _held_back(model, policy, cause, now)) is not None:
        yield from _note(model, cause, *held)
    elif now >= max((until for name, until in model.held.items() if name.startswith(DATA)), default=now):
        args = {"mark": mark, "data": pinned, "fresh": sorted(fresh)}
        yield Action(
            key=f"probe:{model.name}:{champion.number}:{mark}",
            kind="probe",
            model=model.name,
            version=champion.number,
            args=args,
        )


def _answer(model: ModelState, champion: Version, alarm: dict[str, Any]) -> str:
    """Choose the cheapest answer to an alarm: a calibration alarm is repaired once before the model is trained anew."""
    repaired = champion.change == "repair" or any(
        run.change == "repair" and run.at >= champion.at for run in model.runs.values()
    )
    return "repair" if alarm.get("answer") == "repair" and not repaired else "refresh"


def _busy(model: ModelState) -> bool:
    """Say whether a training, or its judgement, is under way: one question at a time."""
    if any(run.open for run in model.runs.values()):
        return True
    undecided = (
        version
        for version in model.versions.values()
        if not (version.rejected or version.failed or version.deleted or PRODUCTION in version.left)
        and False not in model.commits[version.commit].tested.values()
    )
    return any(
        version.passed is None
        or (version.released and PRODUCTION not in version.entered and version.change != "redesign")
        for version in undecided
    )


def _held_back(model: ModelState, policy: Spec, cause: Cause, now: datetime) -> tuple[str, str, datetime] | None:
    if cause.change == "repair":
        return None  # it costs nothing, and begins only when nothing else is under way
    automatic = [run for run in model.runs.values() if run.reason not in ("push", "hand") and run.change != "repair"]
    cooldown = parse_duration(policy.triggers.cooldown)
    last = max((run.at for run in automatic), default=None)
    if last is not None and last + cooldown > now and cause.reason != "schedule":
        words = f"the last training began {last:%Y-%m-%d %H:%M}, cooldown {policy.triggers.cooldown}"
        return "cooldown", words, last + cooldown
    month = [run for run in automatic if run.at > now - MONTH]
    budget = policy.triggers.budget
    if len(month) >= budget.trainings_per_month:
        until = _next_month(month, now)
        return "budget", f"{len(month)} trainings in 30 days, budget {budget.trainings_per_month}", until
    spent = sum(_cpu_hours(model, run.version) for run in month)
    if spent >= budget.cpu_hours_per_month:
        until = _next_month(month, now)
        return "budget", f"{spent:.2f} CPU hours in 30 days, budget {budget.cpu_hours_per_month:g}", until
    return None


def _next_month(month: list[Run], now: datetime) -> datetime:
    """Return when the first of a month's trainings is no longer one of it; a budget of nothing is asked of again."""
    return min((run.at for run in month), default=now) + MONTH


def _weighed(model: ModelState, champion: Version, policy: Spec, cause: Cause) -> Decayed | None:
    """Return what a decay costs beside a training; None where it is not weighed, or not known.

    It is asked anew after each look, with what the look brought: a decay that costs more and more is trained for then.
    """
    lane = model.lane(PRODUCTION)
    alarm = next((one for one in lane.alarms.values() if one["seq"] == cause.evidence.get("alarm")), {})
    if not policy.triggers.weigh or cause.reason != "decay" or "excess" not in alarm:
        return None
    cost = policy.triggers.cost
    return Decayed(
        metric=policy.rollout.primary,
        excess=alarm["excess"],
        losses=alarm["losses"],
        daily=lane.daily,
        error=cost.error,
        hours=_cpu_hours(model, model.trained(champion).number),
        hour=cost.training_cpu_hour,
        currency=cost.currency,
    )


def _with(cause: Cause, worth: Decayed | None) -> Cause:
    """Return a cause with the arithmetic that it was weighed by."""
    if worth is None:
        return cause
    evidence = {**cause.evidence, "worth": msgspec.to_builtins(worth)}
    return msgspec.structs.replace(cause, why=f"{cause.why} {worth.sentence()}", evidence=evidence)


def _note(model: ModelState, cause: Cause, rule: str, words: str, until: datetime) -> Iterator[Action]:
    """Write down once, for each cause and rule, that a training was due and what held it back."""
    mark = f"{cause.mark}/{rule}"
    if mark in model.held:
        return
    facts = {"cause": mark, "reason": cause.reason, "until": format_instant(until), "evidence": cause.evidence}
    draft = Draft(
        kind="not_triggered",
        actor="orrery/triggers",
        why=f"{cause.why} Held back: {words}.",
        model=model.name,
        environment=PRODUCTION,
        data=facts,
    )
    yield record(f"held:{model.name}:{mark}", draft)


def _trigger(model: ModelState, commit: Commit, cause: Cause, data: DataState) -> Action:
    pinned = {name: _version_of(data, name) for name in commit.spec["data"].values()}
    before = sum(run.mark == cause.mark for run in model.runs.values())  # an alarm that outlives a training asks again
    run = digest(f"{model.name}/{cause.reason}/{cause.mark}/{before}/{commit.sha}")[:12]
    return trigger(model.name, run, commit.sha, cause, pinned)


def trigger(
    model: str,
    run: str,
    commit: str,
    cause: Cause,
    pinned: dict[str, int],
    *,
    by: str = "orrery/triggers",
    params: dict[str, Any] | None = None,
    window: str = "",
) -> Action:
    """Return the action that starts a training; ``window`` where it is decided already which rows it learns from."""
    facts = {
        "run": run,
        "reason": cause.reason,
        "change": cause.change,
        "commit": commit,
        "data": pinned,
        "evidence": cause.evidence,
        "mark": cause.mark,
        "params": params or {},
        **({"window": window} if window else {}),
    }
    draft = Draft(kind="triggered", actor=by, why=cause.why, model=model, data=facts)
    return record(f"trigger:{model}:{run}", draft)


def by_hand(
    model: ModelState, data: DataState, *, why: str, actor: str, change: str, params: dict[str, Any]
) -> list[Draft]:
    """Return the events of a training that a person asks for; no cooldown and no budget holds it back.

    It is of the champion's commit, before there is a champion of the newest one.

    Raises
    ------
    NotAllowed
        If nothing can be trained, or there is nothing to repair.
    NotUnderstood
        If there is no such kind of change.
    NotFound
        If a dataset is not there yet.
    """
    champion = model.champion()
    commits = [commit for commit in model.commits.values() if commit.tested.get("development")]
    if champion is None and not commits:
        raise NotAllowed(f"{model.name} has no commit whose tests passed.", todo="Push one.")
    if change not in CHANGES:
        raise NotUnderstood(f"{change!r} is no kind of change.", todo="Use refresh, repair or redesign.")
    if change == "repair" and champion is None:
        raise NotAllowed(f"{model.name} has no champion to repair.")
    sha = champion.commit if champion else commits[-1].sha
    pinned = {name: _version_of(data, name) for name in model.commits[sha].spec["data"].values()}
    if missing := [name for name, version in pinned.items() if not version]:
        raise NotFound(f"There is no dataset {missing[0]!r} yet.", todo=f"orrery data add {missing[0]} FILES...")
    run = digest(f"{model.name}/hand/{model.seq}")[:12]
    cause = Cause("hand", change if champion else "redesign", why, f"{actor}:{model.seq}", {"params": params})
    return list(trigger(model.name, run, sha, cause, pinned, by=actor, params=params).drafts)


def _version_of(data: DataState, name: str) -> int:
    dataset = data.datasets.get(name)
    return dataset.version if dataset else 0


def _began(model: ModelState) -> datetime:
    """Return since when there is a model in production: its schedule counts from then."""
    return model.lane(PRODUCTION).tenures[0][1]


def _newest_data(model: ModelState) -> dict[str, int]:
    newest: dict[str, int] = {}
    for run in model.runs.values():
        for name, number in run.data.items():
            newest[name] = max(newest.get(name, 0), number)
    return newest


def _cpu_hours(model: ModelState, version: int | None) -> float:
    facts = model.versions[version].facts if version in model.versions else {}
    return float(facts.get("cpu_seconds", 0.0)) / 3600
