"""A copy of everything, and back: ``backup``, ``restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orrery.cli import show
from orrery.cli.command import Here, command
from orrery.errors import NotAllowed


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(backup)
    command(app)(restore)


def backup(
    here: Here,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A folder that is not there yet.")],
    keys: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Another folder, for the keys; keep it apart. Default: not copied."),
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, if there is a special one.")] = "",
) -> None:
    """Copy everything that cannot be made anew, while orrery runs: timeline, data, repositories, models.

    Without the keys it opens nothing that is encrypted: not personal data, not secrets, not pseudonyms.
    """
    from orrery.audit.backup import back_up
    from orrery.timeline.event import Draft

    orrery = here.orrery()
    orrery.allow("operate", "")
    orrery.ship_journal()
    made = back_up(orrery.settings, target.absolute(), orrery.clock.now(), keys.absolute() if keys else None)
    facts = {
        "seq": made.seq,
        "hash": made.hash,
        "files": len(made.files),
        "bytes": made.bytes,
        "keys": keys is not None,
    }
    words = why or "A copy that can be brought back, if this one is lost."
    orrery.append([Draft(kind="backed_up", actor=here.actor, why=words, data=facts)])
    if here.as_json:
        show.as_json({**facts, "target": str(target), "not_in_it": made.keys, "lake": made.lake})
        return
    print(f"{len(made.files)} files, {show.size(made.bytes)}, up to event {made.seq} with the hash\n  {made.hash}")
    if made.lake:
        show.note(f"The lake is NOT in it: {made.lake} is the store's to keep.")
    if made.keys and keys is None:
        show.note(
            f"NOT in it, and nothing encrypted can be read without: {', '.join(made.keys)}. --keys DIR copies them."
        )
    for path in (here.settings.privacy_key, here.settings.secrets_key):
        if path and "://" not in path:
            show.note(f"NOT copied: {path} lies outside of the home.")


def restore(
    here: Here,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The folder that `orrery backup` made.")],
    keys: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder with its keys; default: they are put there by hand.")
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason.")] = "",
) -> None:
    """Bring a backup back as the home that --home names, whole or not at all, and check it.

    All sessions end. What happened after the backup is gone: also the revoking of tokens and roles, and erasures.
    """
    from orrery.app import Orrery
    from orrery.audit import backup as copies
    from orrery.timeline.event import Draft
    from orrery.workers.supervisor import running

    settings = here.settings
    if running(settings.home) is not None:
        raise NotAllowed(f"An orrery runs in {settings.home}.", safe="It was left alone.", todo="Stop it first.")
    manifest = copies.restore(source.absolute(), settings, keys.absolute() if keys else None)
    orrery = Orrery(settings)
    copies.check(orrery.timeline, manifest)
    copies.end_sessions(orrery.timeline, orrery.clock.now())
    missing = [name for name in manifest.keys if not (settings.home / name).exists()]
    facts = {"seq": manifest.seq, "hash": manifest.hash, "at": manifest.at.isoformat(), "keys": not missing}
    words = why or "The home was brought back from a copy."
    orrery.append([Draft(kind="restored", actor=here.actor, why=words, data=facts)])
    if here.as_json:
        show.as_json({**facts, "home": str(settings.home), "missing": missing})
        return
    print(f"Restored to {settings.home}: {manifest.seq} events as of {show.minute(manifest.at)}, and the chain holds.")
    if missing:
        show.note(f"Put the keys there before it is started: {', '.join(missing)}.")
    show.note("Tokens and roles that were taken back since, and subjects that were erased since: do it again.")
