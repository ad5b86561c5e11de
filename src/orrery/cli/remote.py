"""Where a project's commits come from: ``remote set``, ``list``, ``fetch``, ``remove``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from orrery.cli import show
from orrery.cli.command import Here, ModelName, Why, command
from orrery.errors import NotUnderstood

Reason = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for somebody who was not there.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    remote = typer.Typer(help="Repositories elsewhere that projects are fetched from.", no_args_is_help=True)
    command(remote, "set")(set_)
    command(remote, "list")(remotes)
    command(remote)(fetch)
    command(remote)(remove)
    app.add_typer(remote, name="remote")


def set_(
    here: Here,
    model: ModelName,
    url: Annotated[str, typer.Argument(metavar="URL", help="https://HOST/PATH or ssh://HOST/PATH of the repository.")],
    branch: Annotated[str, typer.Option(metavar="NAME", help="Branch that starts the loop.")] = "main",
    user: Annotated[str, typer.Option(metavar="NAME", help="Name that is shown with the token; default: git.")] = "",
    token: Annotated[
        bool, typer.Option("--token", help="Read a deploy token, or for ssh a private key, from standard input.")
    ] = False,
    own_secret: Annotated[
        bool, typer.Option("--own-secret", help="Read the secret of webhooks from the first line of standard input.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="It may be within this network; http:// and file:// are then allowed.")
    ] = False,
    why: Reason = "It is developed there.",
) -> None:
    """Fetch a project from a repository elsewhere; a platform tells of pushes by a webhook.

    The secret of the webhook is shown once. Setting a remote again makes a new secret.
    """
    secret = sys.stdin.readline().strip() if own_secret else ""
    given = sys.stdin.read().strip() if token else ""
    if (own_secret and not secret) or (token and not given):
        raise NotUnderstood("There is nothing on standard input.", safe="Nothing was changed.")
    made, secret = here.orrery(make=True).set_remote(
        model, url, why=why, actor=here.actor, branch=branch, user=user, token=given, secret=secret, private=private
    )
    place = f"{here.settings.public_url}/hooks/{model}"
    if here.as_json:
        return show.as_json({**asdict(made), "secret": "" if own_secret else secret, "hooks": place})
    show.note(f"{model} comes from {branch} of {url}. Its webhook, with the content type application/json, is one of")
    for platform in ("github", "gitlab", "gitea", "bitbucket"):
        show.note(f"  {place}/{platform}")
    if not own_secret:
        show.note("with this secret, which is not shown again:")
        print(secret)
    return None


def remotes(here: Here) -> None:
    """List where projects come from, and how it goes."""
    from orrery.notify.outbox import Outbox, Record

    orrery = here.orrery()
    records = Outbox(orrery.timeline).records("fetch/")
    found = []
    for one in orrery.remotes.all():
        record = records.get(f"fetch/{one.project}", Record())
        last = datetime.fromtimestamp(record.last, UTC) if record.last else None
        found.append({**asdict(one), "last": last, "waiting": record.waiting, "said": record.said})
    if here.as_json:
        for each in found:
            show.as_json(each)
    elif found:
        rows = [
            (each["project"], each["url"], each["branch"], show.minute(each["last"]) or "never", each["said"])
            for each in found
        ]
        show.columns(rows, ("project", "comes from", "branch", "last fetched", ""))
    else:
        show.note("None yet: projects are pushed here.")


def fetch(here: Here, model: ModelName) -> None:
    """Fetch the newest commit now, without a webhook; it counts as pushed by who asks."""
    said = here.orrery().fetch_remote(model, actor=here.actor)
    if here.as_json:
        show.as_json({"project": model, "said": said})
    else:
        print(f"{said}.")


def remove(here: Here, model: ModelName, why: Why) -> None:
    """Fetch a project from nowhere any more."""
    here.orrery().remove_remote(model, why=why, actor=here.actor)
    if here.as_json:
        show.as_json({"project": model, "there": False})
    else:
        print(f"{model} is pushed here, and fetched from nowhere.")
