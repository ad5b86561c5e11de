"""Open questions: ``issue list``, ``open``, ``comment``, ``assign``, ``close``, ``reopen``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orrery.cli import show
from orrery.cli.command import Here, ModelName, Why, command
from orrery.cli.timeline import told

IssueId = Annotated[str, typer.Argument(metavar="ISSUE", help="Id of the issue, or the beginning of it.")]
About = Annotated[int | None, typer.Option("--version", metavar="N", min=1, help="Version that it is about.")]
Seq = Annotated[int | None, typer.Option("--event", metavar="SEQ", min=1, help="Number of an event that it is about.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    issue = typer.Typer(help="What waits for a person.", no_args_is_help=True)
    command(issue, "list")(issues)
    command(issue, "open")(open_)
    for one in (comment, assign, close, reopen):
        command(issue)(one)
    app.add_typer(issue, name="issue")


def issues(
    here: Here,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Of this model; default: of all.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Closed ones as well.")] = False,
) -> None:
    """List the open issues, the oldest first; those of orrery itself stand at no model and close by themselves."""
    orrery = here.orrery()
    of = {name: orrery.model(name).issues for name in ([model] if model is not None else orrery.models())}
    if model is None and orrery.principal.may("audit"):
        of[""] = orrery.states.data().issues
    found: list[dict[str, Any]] = [
        {"model": name, **show.plain(one)}
        for name, ones in of.items()
        for one in ones.values()
        if all_ or one.closed is None
    ]
    if here.as_json:
        for each in found:
            show.as_json(each)
    elif found:
        rows = [
            (
                each["id"],
                each["model"] or "-",
                f"v{each['version']}" if each["version"] is not None else "-",
                each["at"][:16].replace("T", " "),
                each["owner"] or "-",
                "closed" if each["closed"] else "open",
                " ".join(each["title"].split()),
            )
            for each in found
        ]
        show.columns(rows, ("issue", "model", "version", "since", "for", "", "title"))
    else:
        show.note("Nothing is open.")


def open_(
    here: Here,
    model: ModelName,
    title: Annotated[str, typer.Argument(metavar="TITLE", help="What it is, in a few words.")],
    why: Why,
    to: Annotated[str, typer.Option(metavar="NAME", help="Who looks after it; default: the owner.")] = "",
    version: About = None,
    event: Seq = None,
) -> None:
    """Open an issue."""
    told(
        here, here.orrery().open_issue(model, title, why=why, actor=here.actor, owner=to, version=version, event=event)
    )


def comment(
    here: Here,
    model: ModelName,
    issue: IssueId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What is to be said.")],
    version: About = None,
    event: Seq = None,
) -> None:
    """Say something about an issue; --version and --event link it to them."""
    orrery = here.orrery()
    told(here, orrery.comment_issue(model, issue, why=text, actor=here.actor, version=version, event=event))


def assign(
    here: Here,
    model: ModelName,
    issue: IssueId,
    to: Annotated[str, typer.Argument(metavar="NAME", help="Who looks after it from now on.")],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason.")] = "They look after it.",
) -> None:
    """Let somebody else look after an issue."""
    told(here, here.orrery().assign_issue(model, issue, owner=to, why=why, actor=here.actor))


def close(here: Here, model: ModelName, issue: IssueId, why: Why) -> None:
    """Close an issue."""
    told(here, here.orrery().close_issue(model, issue, why=why, actor=here.actor))


def reopen(here: Here, model: ModelName, issue: IssueId, why: Why) -> None:
    """Open a closed issue again; from then on only a person closes it."""
    told(here, here.orrery().reopen_issue(model, issue, why=why, actor=here.actor))
