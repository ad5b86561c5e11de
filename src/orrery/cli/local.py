"""A training on this machine, without a server: ``run``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orrery.cli import show
from orrery.cli.command import Here, command
from orrery.cli.orders import parameters
from orrery.errors import NotFound, NotUnderstood, ProjectFailed

if TYPE_CHECKING:
    import polars as pl

    from orrery.spec import Spec

FILE = "orrery.toml"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(run)


def run(
    here: Here,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the project.")] = Path(),
    param: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Parameter of a step; repeat.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=WHAT", help="Take a dataset from a file, or as NAME@VERSION of the lake; repeat."),
    ] = None,
) -> None:
    """Train the project here and now.

    Shows which step ran, which came from the cache, and why.

    No server is needed and nothing goes on the timeline. Datasets come from the lake (the newest version), or from
    files: --data flights=flights.csv.
    """
    spec = project(folder)
    chosen = _chosen(spec, data or [])
    with tempfile.TemporaryDirectory(prefix="orrery-run-") as out:
        result = _train(here, spec, folder, chosen, parameters(param or []), Path(out))
    steps = result.get("steps") or []
    if here.as_json:
        for step in steps:
            show.as_json(step)
        show.as_json({name: result.get(name) for name in ("ok", "metrics", "holdout_rows", "seconds", "cpu_seconds")})
    else:
        head = ("for", "step", "", "seconds", "why")
        show.columns([_row(step) for step in steps], head)
    if not result.get("ok"):
        error = result.get("error") or {}
        raise ProjectFailed(
            error.get("message") or "The training failed.",
            output="\n".join(error.get("traceback") or []),
            safe="" if "kept" in str(error.get("message")) else "What was done before stays in the cache.",
        )
    if not here.as_json:
        _say_end(result)


def project(folder: Path) -> Spec:
    """Read the project file of a folder.

    Raises
    ------
    NotFound
        If there is none.
    NotUnderstood
        If it cannot be read.
    """
    from orrery.spec import parse

    file = folder / FILE
    if not file.is_file():
        raise NotFound(f"There is no {FILE} in {folder.absolute()}.", todo="`orrery init NAME` writes a project.")
    return parse(file.read_text(encoding="utf-8"), str(file))


def _chosen(spec: Spec, texts: list[str]) -> dict[str, str]:
    """Return argument -> file or ``dataset@version``, for those that were named."""
    found = {}
    for text in texts:
        name, mark, what = text.partition("=")
        if not mark:
            name, what = text.partition("@")[0], text
        arguments = [argument for argument, dataset in spec.data.items() if name in (argument, dataset)]
        if not arguments:
            known = ", ".join(spec.data)
            raise NotUnderstood(f"The project has no dataset {name!r}.", todo=f"[data] in {FILE} names: {known}.")
        found.update(dict.fromkeys(arguments, what))
    return found


def _train(
    here: Here, spec: Spec, folder: Path, chosen: dict[str, str], params: dict[str, Any], out: Path
) -> dict[str, Any]:
    from orrery.spec import to_dict
    from orrery.types import digest

    datasets = {}
    for argument, dataset in spec.data.items():
        frame, key = _rows(here, dataset, chosen.get(argument, ""))
        path = out / f"{argument}.parquet"
        frame.write_parquet(path)
        datasets[argument] = {"path": str(path), "key": key}
    job = {
        "checkout": str(folder.absolute()),
        "spec": to_dict(spec),
        "datasets": datasets,
        "params": params,
        "window": spec.rollout.redesign.window,
        "refit": spec.gates.refit,
        "cache": str(here.settings.folder("cache")),
        "environment": digest(_installed()),
        "out": str(out / "result"),
    }
    (out / "job.json").write_text(json.dumps(job))
    # Isolated from the folder it is started in, and without our output: what the project prints is shown beside.
    argv = [sys.executable, "-m", "orrery.training.runner", str(out / "job.json")]
    env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1", "ORRERY_HOME": str(here.settings.home)}
    with _working(spec.model.name):
        finished = subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    answer = out / "result" / "result.json"
    if not answer.exists():
        raise ProjectFailed(
            f"The training ended without a result (exit code {finished.returncode}).", output=finished.stdout
        )
    result: dict[str, Any] = json.loads(answer.read_text())
    return result


def _rows(here: Here, dataset: str, what: str) -> tuple[pl.DataFrame, str]:
    """Return the rows of a dataset and what stands for their content."""
    import polars as pl

    from orrery.data.files import read_files
    from orrery.types import digest

    name, at, number = what.partition("@")
    in_lake = not what or (at and number.lstrip("v").isdigit() and not Path(what).exists())
    if in_lake:
        lake = here.orrery().lake
        here.orrery().note_read(name or dataset, "rows", here.actor)
        version = lake.version(name or dataset, int(number.lstrip("v")) if number else None)
        return lake.read(version.name, version.version).polars(), version.key
    frame = pl.concat(list(read_files([what])), how="diagonal_relaxed")
    path = Path(what)
    content = path.read_bytes() if path.is_file() else frame.write_csv().encode()
    return frame, digest(content)


def _installed() -> dict[str, str]:
    from importlib.metadata import distributions

    return {one.name.lower(): one.version for one in distributions() if one.name}


def _row(step: dict[str, Any]) -> tuple[str, str, str, str, str]:
    which = {"probe": "judging", "final": "release"}.get(step.get("run", ""), step.get("run", ""))
    how = "cached" if step["cached"] else "ran"
    why = "nothing that it depends on has changed" if step["cached"] else step["reason"]
    return which, step["name"], how, f"{step['seconds']:.2f}", why


def _say_end(result: dict[str, Any]) -> None:
    said = "   ".join(f"{name} {value:.4g}" for name, value in (result.get("metrics") or {}).items())
    print(f"\n{said}   on {result.get('holdout_rows')} untouched rows; {result['cpu_seconds']:.1f} s of CPU")
    for warning in dict.fromkeys(result.get("warnings") or []):
        show.note(f"Note: {warning}")


@contextlib.contextmanager
def _working(name: str) -> Iterator[None]:
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"Training {name}"):
        yield
