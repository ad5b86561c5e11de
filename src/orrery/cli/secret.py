"""What a project's code needs to reach something and nobody reads: ``secret``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orrery.cli import show
from orrery.cli.command import Here, Why, command
from orrery.errors import NotUnderstood

Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the secret, as orrery.toml has it.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Secrets of projects, which are never shown again.", no_args_is_help=True)
    command(group, "set")(put)
    command(group, "list")(listed)
    command(group)(remove)
    command(group)(rotate)
    app.add_typer(group, name="secret")


def put(
    here: Here,
    project: Project,
    name: Name,
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="The reason, for somebody who was not there.")
    ] = "The project needs it.",
) -> None:
    """Set a secret, or put another value in its place.

    The value comes from standard input, or is asked for and not shown. It reaches the actions that [secrets] in
    orrery.toml names, as the variable SECRET_NAME, and is taken out of all that they print.
    """
    orrery = here.orrery(make=True)
    change = orrery.set_secret(project, name, _value(name), why=why, actor=here.actor)[0].data["change"]
    if here.as_json:
        show.as_json({"project": project, "secret": name, "change": change})
    else:
        print(f"The secret {name} of {project} is {change}.")


def listed(
    here: Here,
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Only those of this project.")] = "",
) -> None:
    """List secrets: whose they are, and who set them when; never their values."""
    found = here.orrery().secrets.all(project)
    if here.as_json:
        for one in found:
            show.as_json({"project": one.project, "secret": one.name, "by": one.by, "at": one.at})
    elif found:
        rows = [(one.project, one.name, one.by, one.at[:16].replace("T", " ")) for one in found]
        show.columns(rows, ("project", "secret", "set by", "at"))
    else:
        show.note("No secret yet: `orrery secret set PROJECT NAME` sets one.")


def remove(here: Here, project: Project, name: Name, why: Why) -> None:
    """Destroy a secret: actions that need it fail from now on."""
    here.orrery().remove_secret(project, name, why=why, actor=here.actor)
    if here.as_json:
        show.as_json({"project": project, "secret": name, "change": "removed"})
    else:
        print(f"The secret {name} of {project} is gone.")


def rotate(
    here: Here,
    why: Why,
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Only those of this project.")] = "",
) -> None:
    """Encrypt secrets anew with new keys; their values stay.

    Without a project, the key file gets a new key, too. Where ORRERY_SECRETS_KEY names it, put the new key before its
    first line, rotate, and take the other lines away.
    """
    events = here.orrery().rotate_secrets(project, why=why, actor=here.actor)
    if here.as_json:
        for event in events:
            show.as_json(event.data)
    else:
        print(f"{len(events)} secrets are encrypted anew.")


def _value(name: str) -> str:
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"{name}: ")
    text = sys.stdin.read()
    if not text.strip():
        raise NotUnderstood("There is no value on standard input.", safe="Nothing was kept.")
    return text.removesuffix("\n").removesuffix("\r")
