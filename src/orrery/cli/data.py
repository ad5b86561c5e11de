"""Datasets: ``data add``, ``list``, ``show``, ``contract``, ``quarantine``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orrery.cli import show
from orrery.cli.command import Here, command
from orrery.errors import NotFound, NotUnderstood

if TYPE_CHECKING:
    from orrery.app import Orrery

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Add rows to datasets, look at them.", no_args_is_help=True)
    command(group)(add)
    command(group, "list")(listed)
    command(group, "show")(shown)
    command(group)(contract)
    command(group)(quarantine)
    app.add_typer(group, name="data")


def add(
    here: Here,
    name: Name,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES...", help="CSV, Parquet or JSON lines files, folders of them, or addresses."),
    ],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="What these rows are; default: the files.")] = "",
    key: Annotated[str, typer.Option(metavar="TEXT", help="The same key again adds nothing twice.")] = "",
    secret: Annotated[
        str, typer.Option(metavar="PROJECT/NAME", help="Secret that opens the addresses: `orrery secret set`.")
    ] = "",
) -> None:
    """Add rows to a dataset; they are its new version.

    Rows that break its contract are set aside, with the reason: `orrery data quarantine NAME`.
    """
    from orrery.data.files import read_files
    from orrery.types import check_name

    check_name(name, "name of a dataset")
    orrery = here.orrery(make=True)
    opening = _secret(orrery, secret) if secret else ""
    words = why or f"From {', '.join(Path(file).name for file in files)}."
    rows = aside = 0
    version: int | None = None
    reasons: dict[str, int] = {}
    with _progress(f"Adding to {name}") as went:
        for number, frame in enumerate(read_files(files, secret=opening)):
            once = f"{key}/{number}" if key else ""
            added = orrery.add_data(name, frame, why=words, actor=here.actor, key=once)
            rows, aside, version = rows + added.rows, aside + added.quarantined, added.version or version
            for reason, count in added.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
            went(rows + aside)
    if rows + aside == 0:
        raise NotUnderstood(f"There is no row in {', '.join(files)}.", safe="Nothing was added.")
    if here.as_json:
        fact = {"dataset": name, "version": version, "rows": rows, "quarantined": aside, "reasons": reasons}
        return show.as_json(fact)
    if version is not None:
        print(f"{name}@v{version}: {rows} rows added.")
    if aside:
        print(f"{aside} rows were set aside (`orrery data quarantine {name}` shows them):")
        show.columns([(count, reason) for reason, count in reasons.items()], indent="  ")
    return None


def _secret(orrery: Orrery, named: str) -> str:
    project, _, name = named.partition("/")
    found = orrery.secrets.values(project).get(name)
    if found is None:
        raise NotFound(f"There is no secret {named!r}.", todo="`orrery secret list` names them.")
    return found


def listed(here: Here) -> None:
    """List the datasets."""
    orrery = here.orrery()
    known = orrery.states.data().datasets
    facts: list[dict[str, Any]] = []
    for name in orrery.lake.names():
        last = orrery.lake.version(name)
        set_aside = known[name].quarantined if name in known else 0
        facts.append(
            {
                "dataset": name,
                "version": last.version,
                "rows": last.rows,
                "columns": list(last.columns),
                "quarantined": set_aside,
                "at": last.at,
                "digest": last.digest,
            }
        )
    if here.as_json:
        for fact in facts:
            show.as_json(fact)
    elif facts:
        head = ("dataset", "version", "rows", "columns", "set aside", "newest")
        show.columns(
            [
                (f["dataset"], f"v{f['version']}", f["rows"], len(f["columns"]), f["quarantined"], show.minute(f["at"]))
                for f in facts
            ],
            head,
        )
    else:
        show.note("No dataset yet: `orrery data add NAME FILES...`")


def shown(
    here: Here,
    name: Name,
    version: Annotated[int | None, typer.Option(metavar="N", min=1, help="This version; default: the newest.")] = None,
) -> None:
    """Show what a dataset holds, column by column."""
    from orrery.data.profile import profile

    orrery = here.orrery()
    found = orrery.lake.version(name, version)
    orrery.note_read(name, "profile", here.actor)
    facts = profile(orrery.lake.read(name, found.version).polars())
    if here.as_json:
        head = {key: value for key, value in asdict(found).items() if key != "about"}
        return show.as_json({"dataset": name, **head, "profile": [asdict(fact) for fact in facts]})
    note = f" ({found.note})" if found.note else ""
    print(f"{name}@v{found.version}: {found.rows} rows, the newest {found.rows_added} of {show.minute(found.at)}{note}")
    if found.erased:
        show.note(f"({found.erased} rows of it were erased, or their time was up)")
    rows = []
    for fact in facts:
        spread = ", ".join(f"{value} {share:.0%}" for value, share in fact.top[:4])
        limits = f"{_number(fact.min)} .. {_number(fact.max)}" if fact.min is not None else spread
        rows.append((fact.name, fact.type, f"{fact.missing:.1%}", fact.distinct, _number(fact.mean), limits))
    show.columns(rows, ("column", "type", "missing", "distinct", "mean", "values"))
    return None


def contract(
    here: Here,
    name: Name,
    edit: Annotated[
        Path | None, typer.Option("--edit", metavar="FILE", help="Put the contract of this file in force.")
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason of a change.")] = "",
    printed: Annotated[bool, typer.Option("--print", help="Print it as TOML, to edit; this is the default.")] = False,
) -> None:
    """Print or change what rows of a dataset promise.

    To change it: --print > FILE, edit the file, --edit FILE --why TEXT. What marks a column as personal is declared so
    before the first rows; rules for the columns that it does not name are then inferred from those.
    """
    from orrery.data.contract import Contract
    from orrery.data.ingest import contract_of

    orrery = here.orrery(make=edit is not None)
    if edit is None:
        found = contract_of(orrery.timeline, name)
        if found is None:
            orrery.lake.version(name)
            raise NotFound(f"{name} has no contract.")
        show.as_json({"dataset": name, **found.to_dict()}) if here.as_json else print(found.to_toml(name), end="")
        return
    if not why.strip():
        raise typer.BadParameter("a change needs --why")
    text = edit.read_text(encoding="utf-8")
    fresh = Contract.from_json(text) if edit.suffix == ".json" else Contract.from_toml(text)
    event = orrery.change_contract(name, fresh, why=why, actor=here.actor)[0]
    data = event.data
    if here.as_json:
        show.as_json(data)
    else:
        print(f"The contract of {name} is changed; it holds for rows that come from now on.")


def quarantine(
    here: Here,
    name: Name,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many rows, the newest.")] = 20,
) -> None:
    """Show the rows that were set aside, and why."""
    orrery = here.orrery()
    try:
        frame = orrery.lake.read(name, folder="quarantine").polars()
    except NotFound:
        orrery.lake.version(name)
        if not here.as_json:
            show.note(f"No row of {name} was set aside.")
        return
    orrery.note_read(name, "quarantine", here.actor)
    from orrery.data.check import WHY
    from orrery.data.ingest import AT

    for row in frame.tail(limit).iter_rows(named=True):
        when, why = row.pop(AT), row.pop(WHY)
        if here.as_json:
            show.as_json({"dataset": name, "at": when, "why": why, "row": row})
        else:
            values = ", ".join(f"{column}={value}" for column, value in row.items() if value is not None)
            print(f"{show.minute(when)}  {why}\n  {values}")
    if frame.height > limit and not here.as_json:
        show.note(f"({frame.height - limit} older ones; --limit shows more)")


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Callable[[int], None]]:
    """Show how many rows are in, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    parts = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda rows: bar.update(task, completed=rows)


def _number(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
