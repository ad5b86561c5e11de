"""Personal data: ``privacy find``, ``erase``, ``list``, ``record``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from orrery.cli import show
from orrery.cli.command import Here, ModelName, Why, command
from orrery.errors import NotAllowed

if TYPE_CHECKING:
    from orrery.actions.erase import Found

Who = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="Who it is, as the data have it; or the pseudonym. - reads it.")
]
PLACES = {
    "datasets": "dataset",
    "quarantine": "set aside of",
    "predictions": "prediction log of",
    "labels": "labels of",
    "quarantined-labels": "labels set aside of",
}


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Find what is kept of a person, erase it, say what data are for.", no_args_is_help=True)
    command(group)(find)
    command(group)(erase)
    command(group, "list")(listed)
    command(group)(record)
    app.add_typer(group, name="privacy")


def find(
    here: Here,
    subject: Who,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="What you look for it for.")] = "A look-up.",
) -> None:
    """Find everything that is kept of a subject, and the versions that learned from it.

    That somebody looked is written down, but not for whom. Datasets whose contract names no subject cannot be searched.
    """
    from orrery.actions import erase as erasing
    from orrery.actions.desk import Desk

    desk = Desk(here.orrery(), again=False)
    found = erasing.find(desk, _read(subject), actor=here.actor, why=why)
    if here.as_json:
        return show.as_json(erasing.facts(found))
    _said(found)
    return None


def erase(
    here: Here,
    subject: Who,
    why: Why,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
) -> None:
    """Erase a subject for good: rows, old files, keys; then search every file for it.

    Shows first what would go, and asks; --yes where nobody can be asked. What could not be finished (a training that is
    under way, a version that answers and holds it) is said, and the same order again finishes it. Exit code 1: some of
    it is left.
    """
    from orrery.actions import erase as erasing
    from orrery.actions.desk import Desk

    desk, who = Desk(here.orrery(), again=False), _read(subject)
    planned = erasing.preview(desk, who, actor=here.actor, why=why)
    if not here.as_json or dry_run:
        show.as_json(erasing.facts(planned)) if here.as_json else _said(planned)
    if dry_run:
        return None
    if not yes:
        if not sys.stdin.isatty():
            raise NotAllowed("Nobody is here to ask.", safe="Nothing was erased.", todo="Add --yes to do it.")
        typer.confirm("Erase it? It cannot be brought back.", abort=True)
    went = (lambda step: None) if here.as_json else (lambda step: show.note(f"... {step}"))
    found = erasing.erase(desk, who, actor=here.actor, why=why, went=went)
    if here.as_json:
        show.as_json(erasing.facts(found))
    else:
        print(f"{found.rows} rows erased.")
        _versions(found)
        _traces(found)
    if found.traces:
        raise NotAllowed(
            f"{len(found.traces)} files still hold it, or could not be read.",
            safe="What was erased stays erased, and is not taken again.",
            todo="A version that answers is deleted by the same order once another one has replaced it; other files "
            "are for you to change.",
        )
    return None


def listed(here: Here) -> None:
    """List the erasures that were asked for, and what became of them."""
    orrery = here.orrery()
    orrery.allow("privacy", "")
    found = sorted(orrery.states.data().asked.values(), key=lambda one: one.at)
    if here.as_json:
        for one in found:
            show.as_json(
                {"grave": one.grave, "at": one.at, "by": one.by, "why": one.why, "done": one.done, "rows": one.rows}
                | {"proof": one.proof, "versions": one.versions}
            )
    elif found:
        head = ("asked", "by", "erased", "rows", "proof", "why")
        show.columns([(show.minute(one.at), one.by, *_became(one), one.why) for one in found], head)
    else:
        show.note("Nobody was erased yet.")


def _became(one: object) -> tuple[str, int, str]:
    from orrery.timeline.state import Erasure

    assert isinstance(one, Erasure)
    proof = "-" if one.done is None else "nothing left" if one.clean else "some is left"
    return show.minute(one.done) if one.done else "under way", one.rows, proof


def record(here: Here, model: ModelName) -> None:
    """Write the record of processing of a model: what for, on what basis, of whom, for how long.

    It is made of `[privacy]` of the project file, the contracts and the timeline, as Markdown.
    """
    from orrery.data.processing import record_of

    orrery = here.orrery()
    found = record_of(orrery.model(model), orrery.states.data(), orrery.settings, orrery.clock.now())
    show.as_json(found.to_dict()) if here.as_json else print(found.to_markdown(), end="")


def _read(subject: str) -> str:
    """Return the subject; ``-`` keeps it out of the shell's history."""
    return sys.stdin.readline().rstrip("\n") if subject == "-" else subject


def _said(found: Found) -> None:
    if found.tables:
        rows = []
        for one in found.tables:
            place = PLACES.get(one.folder) or f"{one.folder.replace('-', ' ')} of"
            since = f"since v{one.first}" if one.first else ""
            rows.append((f"{place} {one.name}", one.rows, one.mentions or "", since))
        show.columns(rows, ("where", "rows", "mentions", ""))
    else:
        show.note("No table holds a row of it.")
    _versions(found)
    if found.blind:
        show.note(f"Not searchable, for want of a subject in the contract: {', '.join(found.blind)}.")
    if found.searched:
        _traces(found)


def _versions(found: Found) -> None:
    for model, versions in found.versions.items():
        numbers = ", ".join(f"v{number}" for number in versions)
        print(f"{model} learned from it: {numbers}")


def _traces(found: Found) -> None:
    for trace in found.traces:
        print(f"  {trace.path}" + (f" cannot be read: {trace.why}" if trace.why else ""))
    what = f"{len(found.traces)} files hold it" if found.traces else "Nothing of it is in any file"
    print(f"{what}; {found.searched} files were searched, {show.size(found.size)}.")
