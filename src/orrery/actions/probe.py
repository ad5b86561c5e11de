"""Ask whether new data are worth a training: first their sketch, then a cheap probe against the champion."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np

from orrery.actions.desk import Desk
from orrery.actions.gate import blocks_of, unseen_by
from orrery.actions.losses import own_losses
from orrery.actions.references import countable
from orrery.actions.windows import try_windows
from orrery.data.arrays import counted
from orrery.data.predictions import logged
from orrery.errors import ProjectFailed
from orrery.pipeline.artifact import read_manifest
from orrery.spec import Spec
from orrery.stats import FeatureDrift, TableSketch, paired_interval
from orrery.stats.measure import row_losses
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState, Run, Version
from orrery.triggers.due import Cause, trigger
from orrery.triggers.windows import ALPHA, Choice
from orrery.triggers.worth import Worth
from orrery.types import PRODUCTION, digest, format_instant, parse_duration
from orrery.workers.action import Action

PARTS = 20
"""Parts of the new rows that are looked at one after the other."""
LOOKS = 20 * PARTS
"""Looks between two false alarms: where nothing has changed, one probe in twenty is made for nothing."""
RATE_DAYS = 7
"""Days whose requests are counted, to know how many will come."""


def probe(desk: Desk, model: ModelState, action: Action) -> list[Draft]:
    """Decide whether the new versions of an action's datasets start a training."""
    champion = model.versions[action.version or 0]
    policy = model.spec_of(champion.commit)
    try:
        asked = _weigh(desk, model, champion, policy, action)
    except ProjectFailed as error:
        return [_held(desk, model, policy, action, f"The probe failed, so nothing is trained: {error}", {})]
    why, worth, chosen = asked
    evidence = {} if worth is None else msgspec.to_builtins(worth)
    if chosen is not None and policy.triggers.windows:
        evidence["windows"] = chosen.as_fact()
    if worth is None or chosen is None or not worth.pays:
        return [_held(desk, model, policy, action, why, evidence)]
    cause = Cause("data", "refresh", why, action.args["mark"], evidence)
    run = digest(f"{model.name}/{cause.mark}/{champion.number}")[:12]
    window = chosen.window if policy.triggers.windows else ""
    return list(trigger(model.name, run, champion.commit, cause, action.args["data"], window=window).drafts)


def _weigh(
    desk: Desk, model: ModelState, champion: Version, policy: Spec, action: Action
) -> tuple[str, Worth | None, Choice | None]:
    """Return what was found, in words, and the arithmetic and the window if it came to that."""
    manifest = read_manifest(desk.artifact(champion))
    newest: int = action.args["data"][manifest.dataset]
    came = f"{manifest.dataset}@v{newest}"
    if manifest.dataset in action.args["fresh"]:
        learned = model.trained(champion).data[manifest.dataset]
        changed, said = _changed(desk, policy, manifest.dataset, learned, newest)
        if not changed:
            return f"{came}: {said} Not probed.", None, None
        came = f"{came}: {said}"
    worth, chosen = _probed(desk, model, champion, policy, action)
    which = f" {chosen.sentence()}" if policy.triggers.windows else ""
    return f"{came}{which} {worth.sentence()}", worth, chosen


def _changed(desk: Desk, policy: Spec, name: str, learned: int, newest: int) -> tuple[bool, str]:
    """Say whether rows that were added are distributed otherwise than those before, the target included."""
    lake, spec = desk.orrery.lake, policy.model
    before, added = lake.read(name, learned).polars(), lake.read(name, newest, after=learned).polars()
    if spec.time and spec.time in before.columns:
        before = before.sort(spec.time)
    names = [one for one in before.columns if one not in (spec.entity, spec.time) and countable(before[one])]
    reference = TableSketch.fit(counted(before.select(names), names))
    detector = FeatureDrift(reference, tolerance=policy.monitors.tolerance, arl=LOOKS)
    size = max(1, -(-len(added) // PARTS))
    for part in added.select(names).iter_slices(size):
        look = detector.update(reference.empty_like().add(counted(part, names)))
        if look.alarm:
            blame = ", ".join(feature for feature, _ in look.blame[:3])
            return True, f"{len(added):,} new rows are not like those before, most of all in {blame}."
    evidence = detector.statistic
    return False, f"{len(added):,} new rows are like those before; evidence {evidence:.3g}, and {LOOKS} is asked for."


def _probed(desk: Desk, model: ModelState, champion: Version, policy: Spec, action: Action) -> tuple[Worth, Choice]:
    """Train on a share of the rows, and compare with the champion on the newest labels that neither has seen.

    Where there are several windows the best probe is compared: so much surer the interval has to be.
    """
    now = desk.orrery.clock.now()
    run = Run(
        id=digest(action.key)[:12],
        at=now,
        reason="data",
        change="refresh",
        commit=champion.commit,
        data=action.args["data"],
        why="a probe",
        by="orrery/triggers",
    )
    chosen, probe = try_windows(desk, model, run, policy)
    if probe is None:
        raise ProjectFailed("; ".join(one.failed for one in chosen.tried))
    with desk.model_process(model, champion, unseen_by(model, champion, champion, probe.rows)) as process:
        theirs = process.predict(probe.rows)
    primary = policy.rollout.primary
    with own_losses(desk, model, champion.commit, list(champion.facts.get("classes") or [])) as own:
        gains = row_losses(primary, theirs, probe.labels, own=own) - probe.losses
    found = paired_interval(gains, ALPHA / len(chosen.tried), blocks_of(probe.rows, policy.model.time))
    recent = logged(desk.orrery.lake, model.name, PRODUCTION, now - timedelta(days=RATE_DAYS), now)
    days = max(parse_duration(policy.triggers.cooldown) / timedelta(days=1), 1.0)
    cost = policy.triggers.cost
    spent = model.trained(champion).facts.get("cpu_seconds") or probe.result.get("cpu_seconds") or 0.0
    worth = Worth(
        metric=primary,
        gain=found.estimate,
        low=found.low if np.isfinite(found.low) else -1.0,
        requests=len(recent) / RATE_DAYS * days,
        error=cost.error,
        hours=float(spent) / 3600,
        hour=cost.training_cpu_hour,
        currency=cost.currency,
    )
    return worth, chosen


def _held(desk: Desk, model: ModelState, policy: Spec, action: Action, why: str, evidence: dict[str, Any]) -> Draft:
    """Return the note that new data start no training, and until when they are not looked at again."""
    until = desk.orrery.clock.now() + parse_duration(policy.triggers.cooldown)
    facts = {"cause": action.args["mark"], "reason": "data", "until": format_instant(until), "evidence": evidence}
    return Draft(
        id=action.event_id(),
        kind="not_triggered",
        actor="orrery/triggers",
        why=why,
        model=model.name,
        environment=PRODUCTION,
        data=facts,
    )
