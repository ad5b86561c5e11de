"""Look at production, and at the challengers beside the champion."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from orrery.actions.arms import daily_values, labelled_units, valued_units
from orrery.actions.desk import Desk, owner_of
from orrery.actions.losses import own_losses
from orrery.actions.references import references
from orrery.data.predictions import logged, matured
from orrery.monitors.monitor import Finding, View
from orrery.monitors.watch import Look, look
from orrery.rollout.business import DayFinding, by, day_after_day
from orrery.rollout.compare import level_of, look_at_arm, with_days
from orrery.rollout.compare import look as compare_once
from orrery.rollout.service import service
from orrery.rollout.shares import SHARING, service_in_words
from orrery.spec import Spec
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState
from orrery.types import digest, format_instant, parse_duration, parse_instant
from orrery.workers.action import Action


def watch(desk: Desk, model: ModelState, action: Action) -> list[Draft]:
    """Let every monitor look at what came in since the last look."""
    policy = model.policy()
    assert policy is not None
    champion = model.versions[action.version or 0]
    lane = model.lane(action.environment)
    since, until = parse_instant(action.args["since"]), parse_instant(action.args["until"])
    desk.orrery.ship_journal()
    lake, delay = desk.orrery.lake, parse_duration(policy.model.label_delay)
    requests = logged(lake, model.name, action.environment, since, until)
    requests = requests.filter(pl.col("_version") == champion.number)
    columns = ["_output", *policy.model.protected]
    labelled = matured(lake, model.name, action.environment, since, until, delay, roles=("champion",), columns=columns)
    everything = labelled
    labelled = labelled.filter(pl.col("_version") == champion.number)
    view = View(
        spec=policy,
        requests=requests,
        matured=labelled.rename({"_output": "output", "_at": "at"}),
        classes=list(champion.facts.get("classes") or []),
        **references(desk, model, champion, policy, requests),
        expected_loss=float(champion.facts.get("expected_loss") or float("nan")),
        scale=float(champion.facts.get("scale") or 1.0),
    )
    with own_losses(desk, model, champion.commit, view.classes) as own:
        view = msgspec.structs.replace(view, own=own)
        found = look(view, desk.kept(lane.monitors))
    return _written(desk, model, action, found, len(requests), len(everything))


def _written(desk: Desk, model: ModelState, action: Action, found: Look, requests: int, labelled: int) -> list[Draft]:
    lane, number = model.lane(action.environment), action.args["look"]
    about: dict[str, Any] = {"model": model.name, "version": action.version, "environment": action.environment}
    alarms = [name for name, finding in found.findings.items() if finding.alarm and name not in lane.alarms]
    words = f"{requests} requests and {labelled} matured labels since {action.args['since'][:16]}"
    drafts = [
        Draft(
            id=action.event_id(),
            kind="watched",
            actor="orrery/monitors",
            why=f"Look {number}: {words}; {', '.join(alarms) + ' alarmed' if alarms else 'no alarm'}.",
            data={
                "look": number,
                "since": action.args["since"],
                "until": action.args["until"],
                "rows": requests,
                "labelled": labelled,
                "metrics": found.metrics,
                "monitors": {name: _told(finding) for name, finding in found.findings.items()},
                "state": desk.keep(found.states),
            },
            **about,
        )
    ]

    def said(mark: str, name: str, kind: str, why: str, data: dict[str, Any]) -> Draft:
        actor = f"orrery/monitors/{name}"
        return Draft(id=action.event_id(f"{mark}:{name}"), kind=kind, actor=actor, why=why, data=data, **about)

    for name in alarms:
        finding = found.findings[name]
        facts = {
            "monitor": name,
            "statistic": min(finding.statistic, 1e12),
            "promise": finding.promise,
            "blame": finding.blame,
            "look": number,
            "reason": finding.reason,
            "answer": finding.answer,
            "trains": finding.trains,
            **_excess(finding),
        }
        alarm, cause = said("alarm", name, "alarmed", finding.why, facts), f"alarm:{action.environment}:{name}"
        drafts.append(alarm)
        if model.open_issue(cause) is None:
            issue = {"issue": issue_of(model, name, action), "title": finding.why, "owner": owner_of(model)}
            linked = {**issue, "cause": cause, "events": [alarm.id]}
            drafts.append(said("issue", name, "issue_opened", finding.why, linked))
    for name in found.quiet:
        if name in lane.alarms:
            why = f"The cause of the alarm of {lane.alarms[name]['at']:%Y-%m-%d} is gone."
            drafts.append(said("quiet", name, "quieted", why, {"monitor": name}))
    return drafts


def _told(finding: Finding) -> dict[str, Any]:
    """Return what an event says of one monitor's look."""
    return {
        "statistic": min(finding.statistic, 1e12),
        "promise": finding.promise,
        "insufficient": finding.insufficient,
        "outcome": finding.outcome,
        "why": finding.why,
        "severity": dict(sorted(finding.severity.items(), key=lambda item: -item[1])[:5]),
        **_excess(finding),
    }


def _excess(finding: Finding) -> dict[str, Any]:
    """Return how far losses are above the promise, for the trigger that weighs them."""
    return {} if finding.excess is None else {"excess": round(finding.excess, 6), "losses": finding.losses}


def compare(desk: Desk, model: ModelState, action: Action) -> list[Draft]:
    """Compare a challenger with the champion on the labels that became final since the last look."""
    policy = model.policy()
    lane = model.lane(action.environment)
    assert policy is not None and lane.champion is not None
    challenger = lane.challengers[action.version or 0]
    since, until = parse_instant(action.args["since"]), parse_instant(action.args["until"])
    delay = parse_duration(policy.model.label_delay)
    champion = model.versions[lane.champion]
    desk.orrery.ship_journal()
    columns = ["_output", "_role", policy.rollout.unit, policy.rollout.sticky]
    rows = matured(desk.orrery.lake, model.name, action.environment, since, until, delay, columns=columns)
    if challenger.role == "guard":
        policy = _on_guard(policy)
    classes = list(champion.facts.get("classes") or [])
    scale = float(champion.facts.get("scale") or 1.0)
    told: dict[str, Any] = {"scale": scale, "alpha": level_of(challenger, policy)}
    before = challenger.state
    of_policy = (model.champion() or champion).commit  # whose project file it is
    with own_losses(desk, model, of_policy, classes) as own:
        about = (desk, model.name, action.environment, challenger, lane.champion, policy)
        if challenger.role == "arm":
            expected = float(champion.facts.get("expected_loss") or 0.0)
            units = labelled_units(desk, model.name, action.environment, challenger, rows, lane.champion)
            came = valued_units(*about, since, until)
            found = look_at_arm(
                before, units, policy, classes, challenger.share, business=came, expected=expected, own=own, **told
            )
        else:
            pairs = _pairs(rows, lane.champion, challenger.version, policy)
            if "unit" in pairs.columns and since > challenger.since:
                place = (desk.orrery.lake, model.name, action.environment)
                before_this = matured(*place, challenger.since, since, delay, columns=columns)
                pairs = _without_counted(pairs, _pairs(before_this, lane.champion, challenger.version, policy))
            brought = valued_units(*about, since, until) if challenger.role == "canary" else None
            found = compare_once(before, pairs, policy, classes, until, own=own, business=brought, **told)
    days: list[DayFinding] = []
    if challenger.role == "guard" and lane.since:
        days = _days(desk, model, policy, lane.since, until)
        found = with_days(found, days, len(by(policy.rollout.business, "day")), policy.rollout.alpha)
    effect = (
        "no labelled pairs yet" if found.effect is None else f"challenger better by {found.effect:.4f} on {found.n}"
    )
    facts = {**msgspec.to_builtins(found), "champion": lane.champion, "look": challenger.looks + 1}
    facts["until"] = format_instant(until)
    served = ""
    if challenger.role in SHARING:
        logs = logged(desk.orrery.lake, model.name, action.environment, challenger.moved, until, role=None)
        facts["service"] = service(logs, lane.champion, challenger.version, challenger.role, policy, scale)
        served = service_in_words(msgspec.structs.replace(challenger, service=facts["service"])) + " "
    return [
        Draft(
            id=action.event_id(),
            kind="compared",
            actor="orrery/rollout",
            why=f"{served}Version {challenger.version} ({challenger.role}) beside version {lane.champion}: {effect}; "
            f"evidence {found.evidence:.3g} for, {found.counter:.3g} against: "
            f"{'; '.join([found.decision, *found.broken])}."
            + "".join(f" {one.why}." for one in days if not found.broken),
            model=model.name,
            version=challenger.version,
            environment=action.environment,
            data=facts,
        )
    ]


def issue_of(model: ModelState, monitor: str, action: Action) -> str:
    """Return the id of the issue that an alarm opens: one for each alarm."""
    return digest(f"{model.name}/{action.environment}/{monitor}/{action.args['look']}")[:12]


def _days(desk: Desk, model: ModelState, policy: Spec, promoted: datetime, until: datetime) -> list[DayFinding]:
    """Return the metrics that come by day, those since the promotion beside those before it, where there are enough."""
    found = []
    for name, rule in by(policy.rollout.business, "day").items():
        values = daily_values(desk, model.name, name, rule, policy, until)
        if (days := day_after_day(name, rule, values, promoted.date())) is not None:
            found.append(days)
    return found


def _on_guard(policy: Spec) -> Spec:
    """Return the policy for a former champion: it comes back when it is better, whatever margin challengers have."""
    return msgspec.structs.replace(policy, rollout=msgspec.structs.replace(policy.rollout, margin=0.0, guardrails={}))


def _without_counted(pairs: pl.DataFrame, counted: pl.DataFrame) -> pl.DataFrame:
    """Leave out the units that earlier looks of the trial have counted: who comes back is no new one."""
    return pairs.filter(~pl.col("unit").is_in(counted["unit"].unique().implode()).fill_null(False))


def _pairs(rows: pl.DataFrame, champion: int, challenger: int, policy: Spec) -> pl.DataFrame:
    unit = policy.rollout.unit
    columns = [pl.col("_at").alias("at"), pl.col("_output").alias("champion"), "label", "_id"]
    if unit not in ("row", "hour", "day"):
        columns.append(pl.col(unit).alias("unit") if unit in rows.columns else pl.lit(None, pl.String).alias("unit"))
    left = rows.filter((pl.col("_version") == champion) & pl.col("_role").is_in(["champion", "shadow"])).select(columns)
    right = rows.filter((pl.col("_version") == challenger) & (pl.col("_role") != "champion")).select(
        "_id", pl.col("_output").alias("challenger")
    )
    return left.join(right, on="_id", how="inner", maintain_order="left").drop("_id")
