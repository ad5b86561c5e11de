"""Predictions for a whole dataset: ``score``."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from orrery.cli import show
from orrery.cli.command import Here, command
from orrery.types import PRODUCTION

if TYPE_CHECKING:
    from orrery.actions.batches import Job
    from orrery.actions.score import Scored


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(score)


def score(
    here: Here,
    model: Annotated[
        str, typer.Argument(metavar="MODEL[@VERSION]", help="The model; default: its champion. @3 is version 3.")
    ],
    data: Annotated[str, typer.Option("--data", metavar="NAME[@N]", help="Dataset; default: its newest version.")],
    out: Annotated[str, typer.Option("--out", metavar="NAME", help="Dataset that gets the predictions.")],
    env: Annotated[
        str, typer.Option("--env", "--environment", metavar="NAME", help="Whose champion, and whose log.")
    ] = PRODUCTION,
    rows_per_batch: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rows that a process of the model gets at once.")
    ] = 50_000,
    processes: Annotated[
        int, typer.Option(metavar="N", min=0, help="Processes of the model; default: one for each core.")
    ] = 0,
    log: Annotated[bool, typer.Option("--log/--no-log", help="Whether the prediction log gets them, too.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="What the predictions are for.")] = "",
) -> None:
    """Predict for every row of a dataset.

    The same order again goes on where a killed one was; the predictions are there when all of them are.
    """
    from orrery.actions import score as scoring
    from orrery.actions.desk import Desk

    name, _, which = model.partition("@")
    desk = Desk(here.orrery(), again=False)
    job = scoring.plan(desk, name, which, data, out, environment=env, log=log)
    if dry_run:
        return _said(here, job, scoring.done(desk, job), rows_per_batch)
    with _progress(f"Scoring {job.rows.name}@v{job.rows.version}", job.rows.rows) as went:
        found = scoring.score(
            desk,
            job,
            actor=here.actor,
            why=why,
            rows_per_batch=rows_per_batch,
            processes=processes,
            went=went,
        )
    return _done(here, job, found)


def _said(here: Here, job: Job, done: int, rows_per_batch: int) -> None:
    rows = job.rows.rows
    batches = -(-(rows - done) // rows_per_batch)
    about = {"model": job.model.name, "version": job.version.number, "dataset": job.rows.name}
    if here.as_json:
        facts = {"dataset_version": job.rows.version, "out": job.out, "rows": rows, "done": done, "batches": batches}
        return show.as_json({**about, **facts, "environment": job.environment, "logged": job.log})
    print(
        f"{rows} rows of {job.rows.name}@v{job.rows.version} would be scored by version {job.version.number} of "
        f"{job.model.name} into {job.out}: {done} are done, {batches} batches are left."
    )
    where = f"the prediction log of {job.environment} would get them, too" if job.log else "no log"
    show.note(f"({len(job.columns)} columns are read; {where}; nothing was done.)")
    return None


def _done(here: Here, job: Job, found: Scored) -> None:
    now = found.rows - found.resumed
    rate = round(now / found.seconds) if found.seconds else None
    if here.as_json:
        return show.as_json(
            {
                "model": job.model.name,
                "version": job.version.number,
                "environment": job.environment,
                "dataset": job.rows.name,
                "dataset_version": job.rows.version,
                "out": job.out,
                "out_version": found.version.version,
                "rows": found.rows,
                "resumed": found.resumed,
                "broken": found.broken,
                "logged": job.log,
                "seconds": round(found.seconds, 3),
                "rows_per_second": rate,
                "already": found.already,
                "ray": found.cluster or None,
            }
        )
    place = f"{job.out}@v{found.version.version}"
    if found.already:
        print(f"Nothing to do: {place} has these {found.rows} predictions.")
        return None
    before = f" ({found.resumed} of them before)" if found.resumed else ""
    where = f", on the Ray cluster at {found.cluster}" if found.cluster else ""
    print(f"{place}: {found.rows} predictions{before} in {found.seconds:.1f} s, {rate} rows/s{where}.")
    if found.broken:
        show.note(f"{found.broken} rows break the contract; the column `broken` says where.")
    return None


@contextlib.contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far it is, how fast it goes and how long it takes, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    parts = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, rate="")
        first: list[tuple[float, int]] = []

        def went(rows: int) -> None:
            if not first:
                first.append((time.monotonic(), rows))
            began, before = first[0]
            spent = time.monotonic() - began
            rate = f"{(rows - before) / spent:,.0f} rows/s" if rows > before and spent > 0 else ""
            bar.update(task, completed=rows, rate=rate)

        yield went
