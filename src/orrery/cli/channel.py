"""Where a project's news goes: ``channel`` (chats) and ``webhook`` (programs)."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orrery.access.roles import EVERYWHERE
from orrery.cli import show
from orrery.cli.command import Here, Why, command
from orrery.errors import NotUnderstood

if TYPE_CHECKING:
    from orrery.app import Orrery
    from orrery.notify.channels import Channel
    from orrery.notify.outbox import Record

Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is called in the project.")]
Project = Annotated[str, typer.Option("--on", metavar="PROJECT", help="Name of the project.")]
Reason = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for somebody who was not there.")]
Private = Annotated[
    bool,
    typer.Option("--private", help="It may be within this network: on this machine, say. Plain http is then allowed."),
]
Of = Annotated[str | None, typer.Argument(metavar="PROJECT", help="Only those of this project.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    channel = typer.Typer(help="Chats that are told a project's news.", no_args_is_help=True)
    command(channel, "add")(add_channel)
    command(channel, "list")(channels)
    command(channel, "remove")(remove)
    command(channel, "test")(test)
    app.add_typer(channel, name="channel")
    webhook = typer.Typer(help="Programs that are sent a project's events.", no_args_is_help=True)
    command(webhook, "add")(add_hook)
    command(webhook, "list")(hooks)
    command(webhook, "remove")(remove)
    command(webhook, "test")(test)
    app.add_typer(webhook, name="webhook")


def add_channel(
    here: Here,
    name: Name,
    on: Project,
    about: Annotated[str, typer.Option(metavar="TOPIC", help="What it is told: all, or reviews.")] = "all",
    private: Private = False,
    why: Reason = "A new channel.",
) -> None:
    """Tell a chat the news of a project, or of orrery itself (--on '*'); its address comes from standard input.

    The address is one of Apprise, such as slack://TOKEN/CHANNEL. It holds secrets: it is kept encrypted, and never
    shown again.
    """
    url = sys.stdin.readline().strip()
    if not url:
        raise NotUnderstood(
            "There is no address on standard input.", todo="printf '%s' ADDRESS | orrery channel add NAME --on PROJECT"
        )
    orrery = here.orrery()
    made = orrery.add_channel(on, name, url, why=why, actor=here.actor, about=about, private=private)
    _done(here, {"project": on, "name": name, "place": made.place}, f"{name} is told the news of {_of(on)}.")


def add_hook(
    here: Here,
    url: Annotated[str, typer.Argument(metavar="URL", help="https address that takes events.")],
    on: Project,
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is called.")] = "webhook",
    kinds: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Kind of event that it is sent; repeat. Default: all.")
    ] = None,
    private: Private = False,
    why: Reason = "A new webhook.",
) -> None:
    """Send the events of a project to a program, as signed CloudEvents; the key is shown once."""
    asked = [part.strip() for one in kinds or ["*"] for part in one.split(",") if part.strip()]
    orrery = here.orrery()
    made, secret = orrery.add_hook(on, name, url, why=why, actor=here.actor, kinds=asked, private=private)
    if here.as_json:
        return show.as_json({"project": on, "name": name, "place": made.place, "secret": secret})
    show.note(f"{name} is sent events of {on}. They are signed with this key, which is not shown again:")
    print(secret)
    return None


def channels(here: Here, project: Of = None) -> None:
    """List chats: where they are, and how it goes."""
    _listed(here, project, "chat")


def hooks(here: Here, project: Of = None) -> None:
    """List webhooks: where they are, what they are sent, and how it goes."""
    _listed(here, project, "hook")


def remove(here: Here, name: Name, on: Project, why: Why) -> None:
    """Send nothing there any more, also not what waits."""
    here.orrery().remove_channel(on, name, why=why, actor=here.actor)
    _done(here, {"project": on, "name": name, "there": False}, f"{name} is told nothing of {_of(on)} any more.")


def test(here: Here, name: Name, on: Project) -> None:
    """Send something there now, and say what became of it."""
    said = here.orrery().test_channel(on, name, actor=here.actor)
    _done(here, {"project": on, "name": name, "said": said}, f"{name} was reached: {said}.")


def _of(project: str) -> str:
    return "orrery itself" if project == EVERYWHERE else project


def _listed(here: Here, project: str | None, medium: str) -> None:
    from orrery.notify.outbox import Outbox, Record

    orrery: Orrery = here.orrery()
    if project not in (None, EVERYWHERE):
        orrery.model(project)
    records = Outbox(orrery.timeline).records(f"{medium}/")
    found = [
        _facts(one, records.get(one.target, Record())) for one in orrery.channels.all(project) if one.medium == medium
    ]
    if here.as_json:
        for each in found:
            show.as_json(each)
    elif found:
        rows = [
            (
                each["name"],
                each["project"],
                each["place"],
                ", ".join(each["kinds"]),
                "given up" if each["dead"] else f"{each['waiting']} waiting" if each["waiting"] else "",
                show.minute(each["last"]) or "never",
                each["said"],
            )
            for each in found
        ]
        show.columns(rows, ("name", "project", "where", "told", "", "last", ""))
    else:
        show.note("None yet.")


def _facts(one: Channel, record: Record) -> dict[str, Any]:
    last = datetime.fromtimestamp(record.last, UTC) if record.last else None
    return {
        "name": one.name,
        "project": one.project,
        "place": one.place,
        "kinds": list(one.kinds),
        "private": one.private,
        "since": one.since,
        "by": one.by,
        "dead": one.dead,
        "last": last,
        "waiting": record.waiting,
        "failed": record.failed,
        "said": record.said,
    }


def _done(here: Here, facts: dict[str, Any], text: str) -> None:
    if here.as_json:
        show.as_json(facts)
    else:
        print(text)
