"""What people order: trainings, words on a version (``approve``, ``ask``, ``reject``, ``override``), and releases."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from orrery.cli import show
from orrery.cli.command import Here, ModelName, VersionNumber, Why, command
from orrery.cli.timeline import told
from orrery.errors import NotAllowed, NotUnderstood
from orrery.types import parse_share

Environment = Annotated[str, typer.Option("--env", metavar="NAME", help="Environment.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for order in (train, approve, ask, reject, override, promote, rollback, retire, delete):
        command(app)(order)


def train(
    here: Here,
    model: ModelName,
    why: Why,
    change: Annotated[str, typer.Option(metavar="KIND", help="refresh, repair or redesign.")] = "refresh",
    param: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Parameter of a step; repeat.")] = None,
) -> None:
    """Ask for a training on the newest data.

    A worker of `orrery up` does it.
    """
    orrery = here.orrery()
    told(here, orrery.train(model, why=why, actor=here.actor, change=change, params=parameters(param or [])))
    if not here.as_json:
        _mention_workers(here)


def approve(
    here: Here,
    model: ModelName,
    version: VersionNumber,
    why: Why,
    env: Annotated[str, typer.Option("--env", metavar="NAME", help="Only for this environment; default: all.")] = "",
    role: Annotated[str, typer.Option(metavar="ROLE", help="Only in this role; default: all that was asked.")] = "",
    gate: Annotated[str, typer.Option(metavar="GATE", help="Override this gate, which refused the version.")] = "",
) -> None:
    """Say yes to a version that waits for a review.

    With --gate: override a gate that refused it.
    """
    orrery = here.orrery()
    told(here, orrery.approve(model, version, why=why, actor=here.actor, environment=env, role=role, gate=gate))


def reject(here: Here, model: ModelName, version: VersionNumber, why: Why) -> None:
    """Say no to a version; its author gets an issue."""
    told(here, here.orrery().reject(model, version, why=why, actor=here.actor))


def ask(
    here: Here,
    model: ModelName,
    version: VersionNumber,
    why: Why,
    env: Annotated[str, typer.Option("--env", metavar="NAME", help="Only for this environment; default: all.")] = "",
    role: Annotated[str, typer.Option(metavar="ROLE", help="Only in this role; default: all that was asked.")] = "",
) -> None:
    """Ask the author of a version for changes.

    They get an issue; closing it with the answer lets the review wait for you again.
    """
    told(here, here.orrery().ask_changes(model, version, why=why, actor=here.actor, environment=env, role=role))


def override(
    here: Here,
    model: ModelName,
    version: VersionNumber,
    why: Why,
    env: Environment = "production",
    emergency: Annotated[bool, typer.Option("--emergency", help="Say that it is one; needed.")] = False,
) -> None:
    """In an emergency, let a version in without its reviews, where the policy allows it.

    Everybody who reviews is told, the pages show it in red, and an issue asks for the review afterwards.
    """
    orrery = here.orrery()
    told(here, orrery.override(model, version, why=why, actor=here.actor, environment=env, emergency=emergency))


def promote(
    here: Here,
    model: ModelName,
    version: VersionNumber,
    why: Why,
    env: Environment = "production",
    share: Annotated[
        str, typer.Option(metavar="PERCENT", help="Let it answer this share, and the champion the rest.")
    ] = "100%",
) -> None:
    """Make a version champion by hand.

    Refused if it lacks something that the environment needs. With --share 10%: it answers a part of the requests,
    is taken back where it fails, and stays at that share until you promote or retire it.
    """
    part = parse_share(share)
    told(here, here.orrery().promote(model, version, why=why, actor=here.actor, environment=env, share=part))


def rollback(
    here: Here,
    model: ModelName,
    why: Why,
    to: Annotated[int | None, typer.Option(metavar="N", min=1, help="This version; default: the one before.")] = None,
    env: Environment = "production",
) -> None:
    """Bring an earlier champion back, at once."""
    told(here, here.orrery().rollback(model, why=why, actor=here.actor, environment=env, to=to))


def retire(
    here: Here,
    model: ModelName,
    version: VersionNumber,
    why: Why,
    env: Annotated[str, typer.Option("--env", metavar="NAME", help="Only there; default: wherever it is.")] = "",
) -> None:
    """Take a version out of environments."""
    told(here, here.orrery().retire(model, version, why=why, actor=here.actor, environment=env))


def delete(
    here: Here,
    model: ModelName,
    version: VersionNumber,
    why: Why,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
) -> None:
    """Delete a version's files; its record stays.

    Shows first what would go, and asks; --yes where nobody can be asked.
    """
    from orrery.rollout.moves import order_deletion

    orrery = here.orrery()
    state = orrery.model(model)
    order_deletion(state, version, why, here.actor)  # refuses now what would be refused after the question
    artifact = str(state.versions[version].facts.get("artifact") or "")
    folder = orrery.settings.home / artifact
    files = [path for path in folder.rglob("*") if path.is_file()] if artifact else []
    held = show.size(sum(path.stat().st_size for path in files))
    if not here.as_json:
        show.note(f"Version {version} of {model}: {len(files)} files, {held}, would be removed. Its record stays.")
    if not yes:
        if not sys.stdin.isatty():
            raise NotAllowed("Nobody is here to ask.", safe="Nothing was deleted.", todo="Add --yes to do it.")
        if not typer.confirm("Delete it?"):
            raise NotAllowed("As you say.", safe="Nothing was deleted.")
    told(here, orrery.delete(model, version, why=why, actor=here.actor))


def parameters(texts: list[str]) -> dict[str, Any]:
    """Read ``name=value`` pairs; a value that is JSON is what it says, any other is text.

    Raises
    ------
    NotUnderstood
        If there is no ``=`` in one.

    Examples
    --------
    >>> parameters(["depth=6", "kind=fast"])
    {'depth': 6, 'kind': 'fast'}
    """
    import json

    found: dict[str, Any] = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark or not name:
            raise NotUnderstood(f"{text!r} is no parameter.", todo="Write --param name=value.")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _mention_workers(here: Here) -> None:
    from orrery.workers.supervisor import running

    if running(here.settings.home) is None:
        show.note("No orrery runs here, so this waits: `orrery up` starts one.")
