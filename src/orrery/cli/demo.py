"""The main job: ``demo``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from orrery.cli.command import Here, command


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(demo)


def demo(
    here: Here,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running at the end, to look at its pages.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Three months and one incident only.")] = False,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Stop after this day.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed makes the same decisions.")] = 0,
) -> None:
    """Watch a real model go round the whole loop.

    The flights of 2013, replayed day by day in an orrery of its own.
    """
    from orrery.demo.main import run

    home = Path(here.home) if here.home else None
    code = run(home=home, keep=keep, fast=fast, until=until.date() if until else None, seed=seed)
    if code:
        raise typer.Exit(code)
