"""What must hold of a project file beyond the types of its values."""

from __future__ import annotations

import graphlib
import itertools
import re
from datetime import timedelta

from orrery.errors import NotUnderstood
from orrery.spec.form import ALL, LOSSES, METRICS, RESERVED, Burden, Business, Environment, Gates, Spec
from orrery.types import CHANGES, PRODUCTION, check_name, parse_duration, parse_share


def window_length(window: str) -> timedelta | None:
    """Return how old a row of a window may be at most; None where every row is in it.

    Raises
    ------
    NotUnderstood
        If the text is no window.

    Examples
    --------
    >>> window_length("31d"), window_length("all"), window_length("0s")
    (datetime.timedelta(days=31), None, None)
    """
    return (parse_duration(window) or None) if window != ALL else None


def values_wait(spec: Spec, change: str) -> timedelta:
    """Return how much longer each step of a canary lasts, so that what its answers bring can be judged.

    Nothing where no business metric comes by unit, or where an A/B has judged it before.
    """
    if getattr(spec.rollout, change or "redesign").ab:
        return timedelta()
    metrics = (one for one in spec.rollout.business.values() if one.by == "unit")
    return max((parse_duration(one.delay or spec.model.label_delay) for one in metrics), default=timedelta())


def in_order(environments: dict[str, Environment]) -> dict[str, Environment]:
    """Put what is needed before what needs it; the order in the file says nothing (JSON would not keep it)."""
    needs = {
        name: [need for need in rules.needs if need in environments] for name, rules in sorted(environments.items())
    }
    try:
        return {name: environments[name] for name in graphlib.TopologicalSorter(needs).static_order()}
    except graphlib.CycleError as error:
        raise NotUnderstood(f"The environments {' -> '.join(error.args[1])} need each other.") from None


def check(spec: Spec, source: str) -> None:
    """Raise NotUnderstood, which names the place in ``source``, where a value contradicts another or means nothing."""
    task = spec.model.task
    check_name(spec.model.name, "name of a model")
    if spec.model.name in RESERVED:
        raise NotUnderstood(f"{source}: a model cannot be called {spec.model.name!r}: a page has this address.")
    for dataset in spec.data.values():
        check_name(dataset, "name of a dataset")
    for secret in spec.secrets:
        check_name(secret, "name of a secret")
    _check_losses(spec, source)
    losses, metrics = (*LOSSES[task], *spec.losses), (*METRICS[task], *spec.losses)
    if spec.rollout.primary not in losses:
        raise NotUnderstood(
            f"{source}: [rollout] primary = {spec.rollout.primary!r} is no loss of a {task} model.",
            todo=f"Use one of {', '.join(losses)}, or define it in [losses].",
        )
    for place, names in (("gates", spec.gates.metrics), ("gates.segments.worst", spec.gates.segments.worst)):
        for metric in names:
            if metric not in metrics:
                raise NotUnderstood(
                    f"{source}: [{place}] {metric!r} is no metric of a {task} model.",
                    todo=f"Use one of {', '.join(metrics)}.",
                )
    for metric in spec.rollout.guardrails:
        if metric not in losses:
            raise NotUnderstood(f"{source}: [rollout.guardrails] {metric!r} is no loss of a {task} model.")
    for name, rule in spec.rollout.business.items():
        _check_business(spec, name, rule, f"{source}: [rollout.business.{name}]")
    _check_durations(spec, source)
    _check_windows(spec, f"{source}: [triggers] windows = {list(spec.triggers.windows)}")
    for change in CHANGES:
        _check_shares(getattr(spec.rollout, change), f"{source}: [rollout.{change}]")
        _check_steps(spec, change, f"{source}: [rollout.{change}]")
    _check_environments(spec, source)
    if spec.triggers.schedule:
        from croniter import croniter

        if not croniter.is_valid(spec.triggers.schedule):
            raise NotUnderstood(f"{source}: [triggers] schedule = {spec.triggers.schedule!r} is not a cron expression.")


def _check_business(spec: Spec, name: str, metric: Business, place: str) -> None:
    check_name(name, "name of a business metric")
    burdens = [getattr(spec.rollout, change) for change in CHANGES]
    if name in {one for names in METRICS.values() for one in names} | set(spec.losses):
        raise NotUnderstood(f"{place} has the name of a loss.", todo="Give it another.")
    if not metric.low < metric.high:
        raise NotUnderstood(f"{place} low = {metric.low:g} is not below high = {metric.high:g}.")
    if metric.margin >= metric.high - metric.low:
        raise NotUnderstood(f"{place} margin = {metric.margin:g} tolerates everything between low and high.")
    if metric.delay:
        parse_duration(metric.delay)
    if metric.by == "unit":
        if not metric.low <= metric.absent <= metric.high:
            raise NotUnderstood(f"{place} absent = {metric.absent:g} is not between low and high.")
        if not spec.model.entity:
            raise NotUnderstood(f"{place} needs [model] entity.", todo="Name the column that values come for.")
        if not any(burden.ab or burden.canary for burden in burdens):
            raise NotUnderstood(
                f"{place} compares the units of an A/B or a canary, and no change has one.",
                todo='Set ab or canary in [rollout.redesign] or [rollout.refresh], or by = "day".',
            )
    elif not any(parse_duration(burden.guard) for burden in burdens):
        raise NotUnderstood(f"{place} is looked at while a former champion is on guard, and none is.")


def _check_losses(spec: Spec, source: str) -> None:
    taken = {metric for names in METRICS.values() for metric in names} | set(Gates.__struct_fields__) | {"said", "seen"}
    for name, loss in spec.losses.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) or name in taken:
            raise NotUnderstood(
                f"{source}: [losses] {name!r} cannot be the name of a loss.",
                todo="Use lower-case letters, digits and underscores, and no name that orrery has given already.",
            )
        module, _, function = loss.function.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), function)):
            raise NotUnderstood(
                f"{source}: [losses.{name}] function = {loss.function!r} names no function of the project.",
                todo='Write "module:function".',
            )


def _check_durations(spec: Spec, source: str) -> None:
    rollout = spec.rollout
    texts = [spec.model.label_delay, spec.triggers.cooldown, spec.monitors.every, spec.serving.timeout]
    texts += [spec.triggers.upkeep, rollout.probation.time, spec.privacy.retention]
    texts += [spec.resources.wall, spec.resources.tests_wall]
    texts += [one.review_within for one in spec.environments.values()]
    for burden in (rollout.redesign, rollout.refresh, rollout.repair):
        texts += [burden.min, burden.max, burden.guard, burden.window]
    for text in texts:
        parse_duration(text)
    if parse_duration(spec.monitors.every).total_seconds() < 1:
        raise NotUnderstood(f"{source}: [monitors] every is less than a second.")
    try:
        share = float(spec.gates.holdout)
    except ValueError:
        parse_duration(spec.gates.holdout)
        if not spec.model.time:
            raise NotUnderstood(
                f"{source}: [gates] holdout = {spec.gates.holdout!r} needs [model] time.",
                todo="Name the column with the event time, or give a share such as 0.2.",
            ) from None
    else:
        if not 0 < share < 1:
            raise NotUnderstood(f"{source}: [gates] holdout = {share} is not a share between 0 and 1.")


def _check_windows(spec: Spec, place: str) -> None:
    windows = spec.triggers.windows
    if not windows:
        return
    lengths = [window_length(window) for window in windows]
    if any(length is None and window != ALL for length, window in zip(lengths, windows, strict=True)):
        raise NotUnderstood(f"{place} has a window without rows.", todo=f'Write "{ALL}" for every row.')
    if len(set(lengths)) < len(lengths):
        raise NotUnderstood(f"{place} has the same window twice.", todo="Name each once.")
    if len(windows) < 2:
        raise NotUnderstood(f"{place} leaves nothing to choose.", todo="Name several, or set [rollout.refresh] window.")
    if window_length(spec.rollout.refresh.window) is not None:
        raise NotUnderstood(
            f"{place} and [rollout.refresh] window = {spec.rollout.refresh.window!r} answer the same question.",
            todo="Leave one out.",
        )
    if not spec.model.time:
        raise NotUnderstood(f"{place} needs [model] time.", todo="Name the column that says when a row happened.")


def _check_shares(burden: Burden, place: str) -> None:
    shares = [parse_share(text) for text in burden.canary]
    if any(one >= other for one, other in itertools.pairwise(shares)):
        raise NotUnderstood(f"{place} canary = {list(burden.canary)} does not grow.", todo='Write ["5%", "25%"].')
    if burden.ab and parse_share(burden.ab) == 1:
        raise NotUnderstood(f"{place} ab = {burden.ab!r} leaves nothing to compare with.", todo='Write "50%".')
    if burden.ab and burden.shadow:
        raise NotUnderstood(f"{place} has both shadow and ab: two proofs of the same.", todo="Leave one out.")


def _check_steps(spec: Spec, change: str, place: str) -> None:
    burden: Burden = getattr(spec.rollout, change)
    steps = sum(parse_share(text) < 1 for text in burden.canary)
    waits = values_wait(spec, change)
    each = waits + parse_duration(spec.rollout.probation.time)
    if waits and steps * each >= parse_duration(burden.max):
        raise NotUnderstood(
            f"{place} canary has {steps} steps that each wait {each} for business metrics, which is longer than "
            f"max = {burden.max}.",
            todo="Give it fewer steps, a larger max, or the metrics a shorter delay.",
        )


def _check_environments(spec: Spec, source: str) -> None:
    if PRODUCTION not in spec.environments:
        raise NotUnderstood(f"{source}: [environments] has no production.")
    seen: list[str] = []
    for name, environment in spec.environments.items():
        check_name(name, "name of an environment")
        for need in environment.needs:
            if need in seen or need in ("tests", "gates", "review") or need.startswith("review:"):
                continue
            raise NotUnderstood(
                f"{source}: [environments.{name}] needs {need!r}, which is nothing known.",
                todo=f"Use tests, gates, review, review:ROLE or an environment ({', '.join(spec.environments)}).",
            )
        seen.append(name)
    if seen[-1] != PRODUCTION:
        raise NotUnderstood(f"{source}: [environments.{seen[-1]}] does not lead to production.")
