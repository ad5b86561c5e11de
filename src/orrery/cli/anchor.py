"""The head of the chain, noted outside: ``anchor now``, ``anchor list``."""

from __future__ import annotations

from typing import Annotated

import typer

from orrery.cli import show
from orrery.cli.command import FAILED, Here, command
from orrery.errors import NotUnderstood


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Note the head of the chain outside.", no_args_is_help=True)
    command(group)(now)
    command(group, "list")(listed)
    app.add_typer(group, name="anchor")


def now(
    here: Here,
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PLACE]...", help="git+URL, s3://..., a folder, tsa+https://...; none: ORRERY_ANCHORS."
        ),
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, if there is a special one.")] = "",
) -> None:
    """Note the head of the chain now, so that whoever cuts or rewrites it contradicts what is kept elsewhere.

    `orrery up` does the same again and again where ORRERY_ANCHORS names places. Check with
    `orrery verify --anchors PLACE`.
    """
    from orrery.audit.places import split

    orrery = here.orrery()
    orrery.allow("audit", "")
    addresses = list(split(" ".join(places or []) or here.settings.anchors))
    if not addresses:
        raise NotUnderstood("Where?", todo="`orrery anchor now PLACE`, or name places in ORRERY_ANCHORS.")
    outcomes = orrery.anchoring.anchor(addresses, actor=here.actor, why=why)
    for one in outcomes:
        if here.as_json:
            event = one.event.to_json() if one.event is not None else None
            show.as_json({"target": one.address, "fault": one.fault, "event": event})
        elif one.event is not None:
            print(f"{one.address}: event {one.event.data['seq']} is anchored, {one.event.data['hash']}")
        else:
            print(f"{one.address}: NOT anchored. {one.fault}")
    if any(one.fault for one in outcomes):
        raise typer.Exit(FAILED)


def listed(here: Here) -> None:
    """List the anchors, oldest first.

    With --json: one anchor a line, as `orrery verify --anchors FILE` reads them. Keep that file elsewhere.
    """
    from orrery.audit.anchoring import told
    from orrery.timeline.anchor import of_event

    orrery = here.orrery()
    orrery.allow("audit", "")
    rows = []
    for event in told(orrery.timeline):
        if here.as_json:
            print(of_event(event.data).to_line())
        else:
            fact = event.data
            rows.append((str(fact["at"])[:16].replace("T", " "), fact["seq"], str(fact["hash"])[:16], fact["target"]))
    if rows:
        show.columns(rows, ("noted", "event", "hash", "where"))
    elif not here.as_json:
        show.note("No anchor yet: `orrery anchor now PLACE`.")
