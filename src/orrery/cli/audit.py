"""What somebody did, and the whole chain for who checks it elsewhere: ``audit``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orrery.cli import show
from orrery.cli.command import Here, command
from orrery.cli.timeline import check_kinds, line
from orrery.errors import NotAllowed, NotUnderstood

if TYPE_CHECKING:
    from orrery.app import Orrery
    from orrery.timeline.event import Event


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(audit)


def audit(
    here: Here,
    export: Annotated[str | None, typer.Argument(metavar="export", help="Write the whole chain to FILE.")] = None,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A file that is not there yet.")] = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="What this person did, under whichever of their names.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(metavar="KIND", help="Only this kind; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only from this instant on.")] = None,
) -> None:
    """Show what people did, in all projects: `orrery audit --by mara`; what was denied: `--kind denied`.

    `orrery audit export FILE` writes every event, one a line, and says the hash of the last: note it elsewhere, and
    `orrery verify FILE --head HASH` shows that nothing was changed, removed or cut off since.
    """
    orrery = here.orrery()
    if export is not None:
        if export != "export" or file is None or by or kind or since:
            raise NotUnderstood("This is not understood.", todo="`orrery audit export FILE`, or --by, --kind, --since.")
        return _export(here, orrery, file)
    if kind:
        check_kinds(kind)
    for event in _acts(orrery, by, kind or [], since):
        if here.as_json:
            show.as_json(event.to_json())
        else:
            print(line(event, with_model=True))
    return None


def _acts(orrery: Orrery, by: str | None, kinds: list[str], since: str | None) -> Iterator[Event]:
    from orrery.types import parse_instant

    begin = parse_instant(since) if since else None
    person = cache(orrery.accounts.person)
    for event in orrery.timeline.read(kinds=kinds):
        if begin is not None and event.occurred_at < begin:
            continue
        if by is None:
            if kinds or not event.actor.startswith("orrery/"):
                yield event
        elif person(event.actor).casefold() == person(by).casefold():
            yield event


def _export(here: Here, orrery: Orrery, file: Path) -> None:
    import json

    from orrery.timeline.verify import exported, verify

    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with fresh.open("x", encoding="utf-8") as out:
            for event in orrery.timeline.read():
                out.write(json.dumps(event.to_json(), ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
        verdict = verify(exported(fresh))
        try:
            os.link(fresh, file)  # whole, and never over a file that is there
        except FileExistsError:
            raise NotAllowed(f"{file} is there already.", safe="It was left alone.", todo="Name another.") from None
    finally:
        fresh.unlink(missing_ok=True)
    facts = {"file": str(file), "events": verdict.events, "head": verdict.head, "holds": verdict.holds}
    if here.as_json:
        show.as_json(facts)
    else:
        print(f"{verdict.events} events in {file}; the last has the hash\n  {verdict.head}")
    if not verdict.holds:
        raise NotAllowed("The chain does not hold.", safe="It was written as it is.", todo=f"orrery verify {file}")
