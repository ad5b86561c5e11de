"""What happened: ``timeline``, ``event``, ``verify``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orrery.cli import show
from orrery.cli.command import FAILED, Here, ModelName, command
from orrery.errors import NotFound, NotUnderstood

if TYPE_CHECKING:
    from datetime import datetime

    from orrery.app import Orrery
    from orrery.timeline.anchor import Anchor
    from orrery.timeline.event import Event
    from orrery.timeline.state import Lane, ModelState

QUIET = ("watched", "compared", "built", "registry", "issue_closed", "purged")
"""Kinds that people see only with ``--all``: they are many, and nothing changes by them."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(timeline)
    command(app)(why)
    command(app)(event)
    command(app)(verify)


def timeline(
    here: Here,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Name of the model; none: everything.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="What answered where at this instant, and why.")
    ] = None,
    version: Annotated[int | None, typer.Option(metavar="N", help="Only what happened to this version.")] = None,
    kind: Annotated[list[str] | None, typer.Option(metavar="KIND", help="Only this kind; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the newest.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also looks, comparisons and other small things.")] = False,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="The versions that were deleted, by whom and why.")
    ] = False,
) -> None:
    """Show what happened, who did it and why.

    With --json: one event a line with all its fields; without MODEL the whole chain, as `orrery verify FILE` reads it.
    """
    orrery = here.orrery()
    if kind:
        check_kinds(kind)
    if model is not None:
        state = orrery.model(model)
        if at is not None:
            return _served(here, orrery, state, at)
        if deleted:
            return _deleted(here, state)
    elif at is not None or deleted:
        raise NotUnderstood("Which model's?", todo="`orrery timeline MODEL --at TIME`; `orrery models` lists them.")
    events = _events(orrery, model, kind or [], version, limit)
    if here.as_json:
        for one in events:
            show.as_json(one.to_json())
        return None
    left_out = 0
    for one in events:
        if one.kind in QUIET and not (everything or kind):
            left_out += 1
        else:
            print(line(one, with_model=model is None))
    if left_out:
        show.note(f"({left_out} looks and other small things left out; --all shows them)")
    return None


def why(
    here: Here,
    model: ModelName,
    version: Annotated[
        int | None, typer.Argument(metavar="N", help="The version; none: the one that answers in production.")
    ] = None,
) -> None:
    """Show the chain of evidence behind a version: from the first sign to what became of it, with the numbers.

    Each step names the events that say so: `orrery timeline MODEL --all --json` has them. With --json: one object.
    """
    from orrery.timeline.why import chain

    orrery = here.orrery()
    found = chain(orrery.timeline, orrery.model(model), version)
    if here.as_json:
        show.as_json(show.plain(found))
        return
    print(f"{found.outcome}\n")
    last = ""
    for link in found.links:
        at = show.minute(link.at)
        proof = f"#{link.events[0]}" + (f" to #{link.events[-1]}" if len(link.events) > 1 else "")
        print(f"{at if at != last else '':16}  {link.what:9}  {link.says}  ({link.actor}, {proof})")
        last = at
    for course in found.courses:
        if len(course.points) > 1:
            values = [value for _, value in course.points]
            limit = f", counts from {course.limit:,.10g} on" if course.limit else ""
            print(f"\n{course.name}{limit}:\n{show.growth(values)}  {values[0]:.3g} to {values[-1]:.3g}")


def event(
    here: Here,
    model: ModelName,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What happened in the world around the model.")] = "",
    at: Annotated[str | None, typer.Option(metavar="TIME", help="When it happened; default: now.")] = None,
    version: Annotated[int | None, typer.Option(metavar="N", help="The version it concerns, if one.")] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The same as TEXT, or what to add to it.")] = "",
) -> None:
    """Note that something happened in the world.

    A new tariff, a storm, a campaign: what may explain tomorrow why the numbers moved.
    """
    if not (text or why):
        raise typer.BadParameter("say what happened: orrery event MODEL TEXT")
    words = f"{text} ({why})" if text and why else text or why
    told(here, here.orrery().event(model, why=words, actor=here.actor, occurred_at=at, version=version))


def verify(
    here: Here,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="An exported timeline; none: the home's.")] = None,
    head: Annotated[str | None, typer.Option(metavar="HASH", help="Hash that the last event is known to have.")] = None,
    anchors: Annotated[
        list[str] | None,
        typer.Option(metavar="PLACE", help="Where the chain was anchored, or a file of anchors; may be repeated."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates (PEM) by which time stamps are checked.")
    ] = None,
) -> None:
    """Check that nobody tampered with the timeline.

    Nothing changed, removed, moved or put in between; needs no server. With --anchors: nor cut off at the end, nor
    written anew as a whole. With --ca: the time stamps of the anchors hold.
    """
    from orrery.audit.places import checked, gathered
    from orrery.timeline import verify as checks

    if file is not None and not file.is_file():
        raise NotFound(f"There is no file {file}.", todo="`orrery timeline --json > FILE` exports one.")
    noted = gathered(anchors or [])
    chain = checks.exported(file) if file is not None else _stored(here)
    try:
        sources = [checked(one) for one in anchors or ()]
        verdict = checks.verify(chain, head=head, anchors=noted, sources=sources)
    except (json.JSONDecodeError, TypeError) as error:
        verdict = checks.Verdict(0, "", (f"An event cannot be read: {error}.",))
    faults = [*verdict.faults, *_unstamped([*noted, *verdict.told], ca)]
    if anchors and not noted:
        faults.append(f"There is no anchor at {' or '.join(anchors)}.")
    if here.as_json:
        facts = {"events": verdict.events, "head": verdict.head, "anchors": len(noted), "anchored": verdict.anchored}
        show.as_json({"holds": not faults, **facts, "faults": faults})
    elif not faults:
        print(f"The chain of {verdict.events} events holds. Its head is {verdict.head}")
        if noted:
            after = verdict.events - verdict.anchored
            print(
                f"It has all {len(noted)} anchors, the newest of event {verdict.anchored}; {after} events came since."
            )
        elif head is None:
            show.note("Note the head elsewhere: with --head HASH or --anchors PLACE a cut at the end is seen, too.")
    else:
        print("The chain does NOT hold:")
        for fault in faults:
            print(f"  {fault}")
    if faults:
        raise typer.Exit(FAILED)


def _unstamped(anchors: list[Anchor], ca: Path | None) -> list[str]:
    """Return a sentence for each time stamp that does not hold, or that there is none where some are asked for."""
    from orrery.audit import stamps

    if ca is None:
        return []
    trusted, stamped = stamps.roots(ca), [one for one in anchors if one.stamps]
    if not stamped:
        return ["There is no time stamp to check."]
    return list(dict.fromkeys(fault for one in stamped for fault in stamps.check(one, trusted)))


def line(one: Event, *, with_model: bool = False) -> str:
    """Write an event on one line; who did it is named where it was a person."""
    version = f"v{one.version}" if one.version is not None else "-"
    who = "" if one.actor.startswith("orrery/") else f"  ({one.actor})"
    where = f"{one.model or '-':<20}  " if with_model else ""
    why = " ".join(one.why.split())
    return f"{show.minute(one.occurred_at)}  {where}{version:<4} {one.environment or '-':<11} {one.kind:<16} {why}{who}"


def told(here: Here, events: list[Event]) -> None:
    """Print the events that an order became."""
    for one in events:
        if here.as_json:
            show.as_json(one.to_json())
        else:
            print(line(one))


def _events(
    orrery: Orrery, model: str | None, kinds: list[str], version: int | None, limit: int | None
) -> Iterator[Event]:
    if limit is None:
        return orrery.timeline.read(model, kinds=kinds, version=version)
    newest = list(orrery.timeline.read(model, kinds=kinds, version=version, newest_first=True, limit=limit))
    return reversed(newest)


def check_kinds(kinds: list[str]) -> None:
    """Refuse what is no kind of event.

    Raises
    ------
    NotUnderstood
        If one is none; the nearest is named.
    """
    import difflib

    from orrery.timeline.kinds import KINDS

    for kind in kinds:
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.4)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(KINDS)}."
            raise NotUnderstood(f"{kind!r} is no kind of event.", todo=hint)


def _stored(here: Here) -> Iterator[dict[str, Any]]:
    for one in here.orrery().timeline.read():
        yield one.to_json()


def _deleted(here: Here, state: ModelState) -> None:
    gone = [version for version in state.versions.values() if version.deleted]
    for version in gone:
        assert version.deleted is not None
        if here.as_json:
            show.as_json({"model": state.name, "version": version.number, **version.deleted, "purged": version.purged})
        else:
            fact = version.deleted
            print(f'v{version.number}: deleted {show.minute(fact["at"])} by {fact["by"]}: "{fact["why"]}"')
    if not gone and not here.as_json:
        show.note(f"No version of {state.name} was deleted.")


def _served(here: Here, orrery: Orrery, now: ModelState, at: str) -> None:
    from orrery.types import parse_instant

    instant = parse_instant(at)
    then = orrery.states.at(now.name, instant)
    places = [lane for lane in then.lanes.values() if lane.champion is not None]
    for lane in places:
        fact = _tenure(then, now, lane, instant)
        if here.as_json:
            show.as_json(fact)
        else:
            print(_sentence(fact))
    if not places and not here.as_json:
        print(f"Nothing of {now.name} answered anywhere at {show.minute(instant)}.")


def _tenure(then: ModelState, now: ModelState, lane: Lane, instant: datetime) -> dict[str, Any]:
    assert lane.champion is not None
    version = then.versions[lane.champion]
    run = then.runs.get(version.run)
    approvals = [one for one in version.approvals if not one.gate and one.environment in ("", lane.environment)]
    approvals = [one for one in approvals if version.stands(one)]
    return {
        "model": then.name,
        "at": instant,
        "environment": lane.environment,
        "version": version.number,
        "since": lane.since,
        "why": lane.why,
        "by": lane.by,
        "reason": run.reason if run else "",
        "change": version.change,
        "cause": run.why if run else "",
        "commit": version.commit,
        "data": version.data,
        "approvals": [
            {"actor": one.actor, "why": one.why, "at": one.at, "emergency": one.emergency} for one in approvals
        ],
        "beside": [
            {"version": one.version, "role": one.role, "share": one.share, "standing": one.standing}
            for one in lane.challengers.values()
        ],
        "deleted": now.versions[version.number].deleted,
    }


def _word(approval: dict[str, Any]) -> str:
    return "let in without a review, in an emergency," if approval["emergency"] else "approved"


def _sentence(fact: dict[str, Any]) -> str:
    cause = f"{fact['reason']} -> {fact['change']}" if fact["reason"] else fact["change"]
    said = "; ".join(f'{_word(one)} by {one["actor"]}: "{one["why"]}"' for one in fact["approvals"])
    lines = [
        f"{fact['environment']}: v{fact['version']} since {show.minute(fact['since'])}, because {cause}"
        + (f"; {said}." if said else f"; made champion by {fact['by']}."),
        f"  {fact['why']}",
    ]
    if fact["cause"]:
        lines.append(f"  It was trained because: {fact['cause']}")
    pins = ", ".join(f"{name}@v{number}" for name, number in fact["data"].items())
    lines.append(f"  Commit {fact['commit'][:7]} on {pins}.")
    for one in fact["beside"]:
        lines.append(f"  v{one['version']} beside it, as {one['standing']}.")
    if gone := fact["deleted"]:
        lines.append(f'  v{fact["version"]} was deleted {show.minute(gone["at"])} by {gone["by"]}: "{gone["why"]}"')
    return "\n".join(lines)
