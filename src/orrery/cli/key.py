"""The keys of the home: ``key rotate``."""

from __future__ import annotations

from typing import Annotated

import typer

from orrery.cli import show
from orrery.cli.command import Here, Why, command
from orrery.errors import NotAllowed, NotUnderstood


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Replace the keys of the home.", no_args_is_help=True)
    command(group)(rotate)
    command(group, "list")(listed)
    app.add_typer(group, name="key")


def rotate(
    here: Here,
    which: Annotated[str, typer.Argument(metavar="KEY", help="home or privacy; for secrets: orrery secret rotate.")],
    why: Why,
) -> None:
    """Replace a key by a new one, and encrypt anew what it encrypted; orrery must not run meanwhile.

    home: what orrery's own processes know each other by, and what addresses of channels, tokens of remotes and second
    factors are encrypted with. privacy: what the keys of encrypted columns are encrypted with. Pseudonyms cannot be
    rotated: they are made with the privacy key itself, and everybody would get another name.
    """
    from orrery.audit.rotation import replace_home_key, replace_privacy_key
    from orrery.timeline.event import Draft
    from orrery.workers.supervisor import running

    if which not in ("home", "privacy"):
        raise NotUnderstood(f"There is no key {which!r}.", todo="home, privacy; or `orrery secret rotate`.")
    if not why.strip():
        raise typer.BadParameter("it needs --why")
    if running(here.settings.home) is not None:
        raise NotAllowed(
            "An orrery runs here, whose processes hold the key.", safe="Nothing was changed.", todo="Stop it first."
        )
    orrery = here.orrery()
    if which == "home":
        kept = (orrery.channels, orrery.remotes, orrery.factors)
        count = replace_home_key(orrery.settings, lambda: sum(one.sealed_anew() for one in kept))
    else:
        count = replace_privacy_key(orrery.settings, orrery.privacy)
    orrery.append([Draft(kind="key_replaced", actor=here.actor, why=why, data={"which": which, "sealed": count})])
    if here.as_json:
        show.as_json({"key": which, "sealed": count})
    else:
        print(
            f"The key {which} is a new one; {count} encrypted with it anew. Copy the keys again: orrery backup --keys."
        )


def listed(here: Here) -> None:
    """List when which key was replaced, and by whom; never a key."""
    found = list(here.orrery().timeline.read("", kinds=("key_replaced",)))
    for event in found:
        if here.as_json:
            show.as_json(event.to_json())
        else:
            print(f"{show.minute(event.occurred_at)}  {event.data['which']:<8} {event.actor}: {event.why}")
    if not found and not here.as_json:
        show.note("No key was ever replaced.")
