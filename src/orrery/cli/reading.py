"""How things stand: ``models``, ``versions``, ``status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from orrery.cli import show
from orrery.cli.command import Here, ModelName, addresses, command

if TYPE_CHECKING:
    from datetime import datetime

    from orrery.app import Orrery
    from orrery.timeline.state import ModelState, Version


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for one in (models, versions, status):
        command(app)(one)


def models(here: Here) -> None:
    """List the models and what answers for each."""
    orrery = here.orrery()
    facts = [_model(orrery.model(name)) for name in orrery.models()]
    if here.as_json:
        for fact in facts:
            show.as_json(fact)
    elif facts:
        head = ("model", "task", "production", "since", "versions", "waits for people")
        show.columns(
            [
                (
                    fact["model"],
                    fact["task"],
                    f"v{fact['champion']}" if fact["champion"] is not None else "-",
                    show.minute(fact["since"]) or "-",
                    fact["versions"],
                    fact["reviews"] + fact["issues"] or "-",
                )
                for fact in facts
            ],
            head,
        )
    else:
        show.note("No model yet: `orrery init NAME` writes a project to push.")


def versions(here: Here, model: ModelName) -> None:
    """List the versions of a model and how they stand."""
    orrery = here.orrery()
    state = orrery.model(model)
    facts = [_version(state, one) for one in state.versions.values()]
    if here.as_json:
        for fact in facts:
            show.as_json(fact)
    elif facts:
        primary = _primary(state)
        head = ("version", "trained", "change", "commit", "data", primary, "state")
        show.columns([_row(fact, primary) for fact in facts], head)
    else:
        show.note(f"{model} has no version yet; `orrery timeline {model}` says how far it came.")


def status(here: Here) -> None:
    """Show what runs, answers, waits and is due."""
    orrery = here.orrery()
    fact = survey(orrery)
    if here.as_json:
        show.as_json(fact)
        return
    if fact["pid"] is None:
        print(f"No orrery runs in {fact['home']}; `orrery up` starts it.")
    else:
        print(f"An orrery runs in {fact['home']}, as process {fact['pid']}.")
        show.columns([(name, url) for name, url in fact["addresses"].items()], indent="  ")
        print()
        show.columns(
            [
                (one["name"], one["state"], one["pid"], show.size(one["rss"]), f"{one['cpu']:.0f} s", one["restarts"])
                for one in fact["processes"]
            ],
            ("process", "state", "pid", "memory", "CPU", "restarts"),
        )
    print()
    _say_models(fact)


def survey(orrery: Orrery) -> dict[str, Any]:
    """Return how an orrery stands, as ``orrery status --json`` prints it."""
    from dataclasses import asdict

    from orrery.workers.supervisor import processes, running

    home = orrery.settings.home
    states = [orrery.model(name) for name in orrery.models()]
    found = addresses(home)
    return {
        "home": str(home),
        "pid": running(home),
        "addresses": {name: url for name, url in found.items() if isinstance(url, str)},
        "processes": [asdict(one) for one in processes(home)],
        "models": [_model(state) for state in states],
        "waiting": [one for state in states for one in _waiting(state, orrery.clock.now())],
        "due": [
            {"model": state.name, "action": action.kind, "version": action.version, "key": action.key}
            for state in states
            for action in orrery.due(state.name)
        ],
        "now": orrery.clock.now(),
    }


def _say_models(fact: dict[str, Any]) -> None:
    rows = []
    for one in fact["models"]:
        for place, lane in one["environments"].items():
            beside = ", ".join(f"v{each['version']} {each['standing']}" for each in lane["beside"])
            number = f"v{lane['champion']}" if lane["champion"] is not None else "-"
            alarms = ", ".join(lane["alarms"]) or "-"
            rows.append((one["model"], place, number, show.minute(lane["since"]) or "-", beside or "-", alarms))
        if not one["environments"]:
            rows.append((one["model"], "-", "-", "-", "-", "-"))
    show.columns(rows, ("model", "environment", "answers", "since", "beside", "alarms"))
    if not rows:
        print("No model yet: `orrery init NAME` writes a project to push.")
    if fact["waiting"]:
        print("\nWaiting for people:")
        show.columns([(one["model"], one["what"], one["todo"]) for one in fact["waiting"]], indent="  ")
    if fact["due"]:
        print("\nDue now:")
        rows_due = [
            (one["model"], one["action"], f"v{one['version']}" if one["version"] else "") for one in fact["due"]
        ]
        show.columns(rows_due, indent="  ")


def _model(state: ModelState) -> dict[str, Any]:
    policy = state.policy()
    champion = state.champion()
    return {
        "model": state.name,
        "task": policy.model.task if policy else "",
        "owner": policy.model.owner if policy else "",
        "champion": champion.number if champion else None,
        "since": state.lane("production").since,
        "versions": len(state.versions),
        "reviews": len(state.waiting()),
        "issues": sum(1 for issue in state.issues.values() if issue.closed is None),
        "environments": {
            place: {
                "champion": lane.champion,
                "since": lane.since,
                "beside": [
                    {"version": one.version, "role": one.role, "share": one.share, "standing": one.standing}
                    for one in lane.challengers.values()
                ],
                "alarms": list(lane.alarms),
            }
            for place, lane in state.lanes.items()
        },
    }


def _waiting(state: ModelState, now: datetime) -> list[dict[str, Any]]:
    from orrery.review.deadlines import deadline

    found: list[dict[str, Any]] = []
    for version, environment, role in state.waiting():
        who = f" by {role}" if role else ""
        late = (until := deadline(state, version, environment, role)) is not None and until <= now
        found.append(
            {
                "model": state.name,
                "version": version.number,
                "environment": environment,
                "role": role,
                "overdue": late,
                "what": f"version {version.number}: review{who} for {environment}{', OVERDUE' if late else ''}",
                "todo": f'orrery approve {state.name} {version.number} --why "..."',
            }
        )
    for issue in state.issues.values():
        if issue.closed is None:
            what = f"issue {issue.id} to {issue.owner or 'nobody'}"
            found.append(
                {"model": state.name, "version": issue.version, "issue": issue.id, "what": what, "todo": issue.title}
            )
    return found


def _version(state: ModelState, version: Version) -> dict[str, Any]:
    where = {place: "champion" for place, lane in state.lanes.items() if lane.champion == version.number}
    for place, lane in state.lanes.items():
        if version.number in lane.challengers:
            where[place] = lane.challengers[version.number].standing
    return {
        "model": state.name,
        "version": version.number,
        "trained_at": version.at,
        "change": version.change,
        "run": version.run,
        "commit": version.commit,
        "data": version.data,
        "parent": version.parent,
        "metrics": version.facts.get("metrics") or {},
        "passed": version.passed,
        "gates": version.gates,
        "where": where,
        "rejected": version.rejected,
        "failed": version.failed,
        "deleted": version.deleted,
        "why": version.why,
    }


def _primary(state: ModelState) -> str:
    policy = state.policy()
    return policy.rollout.primary if policy else "loss"


def _row(fact: dict[str, Any], primary: str) -> tuple[str, ...]:
    loss = fact["metrics"].get(primary)
    return (
        f"v{fact['version']}",
        show.minute(fact["trained_at"]),
        fact["change"],
        fact["commit"][:7],
        ", ".join(f"{name}@v{number}" for name, number in fact["data"].items()),
        f"{loss:.4g}" if isinstance(loss, int | float) else "-",
        _standing(fact),
    )


def _standing(fact: dict[str, Any]) -> str:
    if fact["deleted"]:
        return f"deleted by {fact['deleted']['by']}: {fact['deleted']['why']}"
    if fact["rejected"]:
        return f"rejected: {fact['rejected']}"
    if fact["failed"]:
        return f"failed: {fact['failed']}"
    if fact["where"]:
        return ", ".join(f"{role} of {place}" for place, role in fact["where"].items())
    if fact["passed"] is False:
        refused = [name for name, verdict in fact["gates"].items() if verdict.get("verdict") == "refused"]
        return f"refused by {', '.join(refused) or 'the gates'}"
    return "not judged yet" if fact["passed"] is None else "passed the gates"
