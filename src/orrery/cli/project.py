"""The user's project: ``init`` writes one, ``explain`` says what its file means."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer

from orrery.cli import show
from orrery.cli.command import Here, command
from orrery.errors import NotAllowed, NotUnderstood

TEMPLATE = Path(__file__).with_name("template")
TASKS = ("binary", "multiclass", "regression")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(init)
    group = typer.Typer(help="Explain the project file.", no_args_is_help=True)
    command(group)(config)
    command(group)(schema)
    app.add_typer(group, name="explain")


def init(
    here: Here,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the model: lower-case letters, digits, hyphens.")
    ],
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Folder to write; default: NAME.")] = None,
    task: Annotated[str, typer.Option(metavar="TASK", help="binary, multiclass or regression.")] = "binary",
) -> None:
    """Write a model project that trains as it is.

    It comes with a policy, a pipeline, tests, and a made-up sample of data to begin with.
    """
    from orrery.cli.sample import write_sample
    from orrery.types import check_name

    check_name(name, "name of a model")
    if task not in TASKS:
        raise NotUnderstood(f"{task!r} is no task.", todo=f"Use one of {', '.join(TASKS)}.")
    target = folder or Path(name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise NotAllowed(f"{target} is there already and not empty.", safe="Nothing was written.", todo="Name another.")
    for source in sorted(path for path in (TEMPLATE / "project").rglob("*") if path.is_file()):
        relative = source.relative_to(TEMPLATE / "project")
        text = source.read_text(encoding="utf-8")
        for word, value in {"MODEL-NAME": name, **_words(task)}.items():
            text = text.replace(word, value)
        path = target / relative.with_suffix("")  # the templates are text, not code: each ends in .txt
        path = path.with_name(".gitignore") if path.name == "gitignore" else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    write_sample(target / "data" / "sample.csv", task)
    committed = _commit(target)
    if committed:
        _let_git_in(here, target)
    if here.as_json:
        return show.as_json({"model": name, "folder": str(target), "task": task, "committed": committed})
    print(f"{target} is a project that trains as it is. Next:\n")
    if not committed:
        print("  git is not installed: install it, then `git init -b main` and commit.\n")
    at = here.settings.control_url
    print(f"  orrery up                                  # in another terminal\n  cd {target}")
    print(f"  orrery data add {name} data/sample.csv")
    print("  orrery run                                 # trains here, without a server")
    print(f"  git remote add orrery {at}/git/{name}.git")
    print("  git push orrery main")
    return None


def config(
    here: Here,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the project.")] = Path(),
) -> None:
    """Print the whole configuration of a project.

    Each value with where it comes from: the file, or the default that holds where it is silent.
    """
    import tomllib

    from orrery.cli.local import FILE, project
    from orrery.spec import to_dict

    spec = project(folder)
    said = tomllib.loads((folder / FILE).read_text(encoding="utf-8"))
    rows = []
    for key, value in _flat(to_dict(spec)):
        rows.append((key, value, "file" if _says(said, key) else "default"))
    if here.as_json:
        for key, value, source in rows:
            show.as_json({"key": ".".join(key), "value": value, "from": source})
        return
    section: tuple[str, ...] = ("",)
    block: list[tuple[str, str, str]] = []
    for key, value, source in [*rows, (("", ""), None, "")]:
        if key[:-1] != section:
            show.columns(block)
            block = []
            section = key[:-1]
            if section != ("",):
                print(f"\n[{'.'.join(section)}]" if rows[0][0] != key else f"[{'.'.join(section)}]")
        block.append((key[-1], f"= {json.dumps(value, ensure_ascii=False)}", f"# {source}"))


def schema(here: Here) -> None:
    """Print the JSON schema of orrery.toml, for editors."""
    from orrery.spec import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _words(task: str) -> dict[str, str]:
    table = {
        "binary": ("sold_out", "HistGradientBoostingClassifier", "whether a shop sells out that day"),
        "multiclass": ("demand", "HistGradientBoostingClassifier", "whether demand is low, usual or high that day"),
        "regression": ("loaves", "HistGradientBoostingRegressor", "how many loaves a shop sells that day"),
    }
    target, estimator, objective = table[task]
    checks = {
        "binary": "(fitted.predict(seen) == expected).mean() > max(expected.mean(), 1 - expected.mean())",
        "multiclass": "(fitted.predict(seen) == expected).mean() > max((expected == each).mean() for each in expected)",
        "regression": "abs(fitted.predict(seen) - expected).mean() < abs(expected.mean() - expected).mean()",
    }
    return {
        "TASK": task,
        "TARGET": target,
        "ESTIMATOR": estimator,
        "OBJECTIVE": objective,
        "LEARNT": checks[task],
    }


def _commit(folder: Path) -> bool:
    """Make the first commit; False where there is no git."""
    if shutil.which("git") is None:
        return False

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)

    author: list[str] = []
    if git("config", "user.email").returncode or git("config", "user.name").returncode:
        from orrery.settings import actor

        author = ["-c", f"user.name={actor()}", "-c", f"user.email={actor()}@localhost"]
    steps = [
        ["init", "-q", "-b", "main"],
        ["add", "."],
        [*author, "commit", "-q", "--no-gpg-sign", "-m", "Begin the project"],
    ]
    for step in steps:
        done = git(*step)
        if done.returncode:
            show.note(f"git says: {(done.stderr or done.stdout).strip()}")
            return False
    return True


def _let_git_in(here: Here, folder: Path) -> None:
    """Have git ask `orrery credential` when it pushes to this orrery, so that nobody types a token."""
    import sys

    home = shlex.quote(str(here.settings.home))
    helper = f"!{shlex.quote(sys.executable)} -m orrery.cli.main --home {home} credential"
    key = f"credential.{here.settings.control_url}.helper"
    subprocess.run(["git", "-C", str(folder), "config", "--local", key, helper], capture_output=True)


def _flat(value: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Return the plain values of a nested table, those of a table before its inner tables."""
    plain = [((*path, key), each) for key, each in value.items() if not (isinstance(each, dict) and each)]
    inner = [row for key, each in value.items() if isinstance(each, dict) and each for row in _flat(each, (*path, key))]
    return plain + inner


def _says(said: Any, key: tuple[str, ...]) -> bool:
    """Say whether the file itself has a key; a metric stands there without ``metrics`` before it."""
    place = said
    for number, part in enumerate(key):
        if not isinstance(place, dict) or part not in place:
            inline = key[:2] == ("gates", "metrics") and number == 1
            if not inline:
                return False
            continue
        place = place[part]
    return True
