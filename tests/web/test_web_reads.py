"""Reads by way of MLflow and git: whatever gives away what may hold rows of a project with personal columns is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from orrery.access.homekey import home_key, training_pass
from orrery.app import Orrery
from orrery.settings import Settings
from orrery.timeline.event import Draft
from web.conftest import CONTRACT, MODEL, PROJECT
from web.mlflow_server import BY, Served, serving
from web.test_web_entrance import bearer, token
from web.test_web_mlflow_teams import As, asked_for, routes

FILE, CALL, ROW = "in-the-file", "in-the-call", "in-the-record"
"""Words that stand where rows may stand: in a file of a run, in a call that was traced, in a row of an evaluation."""
MARKED = {"columns": {**CONTRACT["columns"], "carrier": {"type": "string", "personal": "plain"}}}
EVERY = "import orrery.access.seldom; orrery.access.seldom.QUIET = 0"
"""Lets each read be an event: of many at once, that is how one sees which were told."""


def described(orrery: Orrery, model: str, dataset: str, contract: dict[str, Any]) -> None:
    spec = {**PROJECT, "model": {**PROJECT["model"], "name": model}, "data": {dataset: dataset}}
    pushed = {"commit": "3f2c1ab" + "0" * 33, "branch": "main", "message": "Begin", "author": "nora", "spec": spec}
    declared = {"dataset": dataset, "contract": contract, "digest": "c0"}
    orrery.append(
        [
            Draft(kind="contract_changed", actor="nora", why="For the test.", data=declared),
            Draft(kind="pushed", actor="nora", why="For the test.", model=model, data=pushed),
        ]
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Of two projects, one whose dataset has a personal column."""
    with serving(tmp_path_factory.mktemp("reads"), EVERY) as found:
        described(found.orrery, MODEL, "flights", MARKED)
        described(found.orrery, "tides", "tides", CONTRACT)
        yield found


@pytest.fixture(scope="module")
def made(served: Served) -> Iterator[dict[str, dict[str, str]]]:
    """What each team has in MLflow, as ids."""
    with pytest.MonkeyPatch.context() as patch:
        be = As(served, patch)
        yield {"ann": written(be("ann"), MODEL), "bob": written(be("bob"), "tides")}
        import mlflow

        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")


def written(client: Any, project: str) -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc  # noqa: F401 - what tracing loads, and warns of
    from mlflow.genai import datasets

    experiment = client.create_experiment(f"{project}/notebook")
    run = client.create_run(experiment).info.run_id
    for name in ("rows.txt", "model/rows.txt"):
        client.log_text(run, FILE, name)
    model = client.create_logged_model(experiment, name="m", source_run_id=run)
    client.create_registered_model(project)
    version = client.create_model_version(project, f"mlflow-artifacts:/{experiment}/{run}/artifacts/model", run_id=run)
    trace = client.start_trace("call", inputs={"x": CALL}, experiment_id=experiment)
    client.end_trace(trace.trace_id, outputs={"y": CALL})
    dataset = datasets.create_dataset(name=f"{project}-questions", experiment_id=experiment)
    dataset.merge_records([{"inputs": {"q": ROW}, "expectations": {"a": ROW}}])
    return {
        "experiment": experiment,
        "run": run,
        "model": model.model_id,
        "version": str(version.version),
        "trace": trace.trace_id,
        "dataset": dataset.dataset_id,
        "source": f"runs:/{run}",
        "project": project,
    }


def reads(orrery: Orrery, after: int = 0) -> list[tuple[str, str, str, list[str]]]:
    found = orrery.timeline.read(kinds=["read"], after=after)
    return [(one.actor, one.data["what"], one.data["of"], one.data["columns"]) for one in found]


def walked(served: Served, made: dict[str, str], who: str, less: str = " ") -> tuple[set[str], list[Any]]:
    """Ask every address of MLflow for what there is; return what was given away, and where nobody was told."""
    fields = {**asked_for(made), "path": "rows.txt", "artifact_file_path": "rows.txt", "name": made["project"]}
    fields |= {"trace_ids": [made["trace"]], "dataset_id": made["dataset"], "model_id": made["model"]}
    filled = {"artifact_path": f"{made['experiment']}/{made['run']}/artifacts/rows.txt"}
    filled |= {"tag_key": "k", "key": "k", "dataset_id": made["dataset"], "model_id": made["model"]}
    filled |= {"assessment_id": "a-1", "trace_id": made["trace"], "request_id": made["trace"]}
    given, silent = set[str](), []
    with served.client(who) as client:
        for method, path in routes():
            if less in path or method == "DELETE" or re.search(r"delete|update|create|log-|set-|restore", path):
                continue
            address = re.sub(r"{(\w+)}", lambda match: filled[match[1]], path)
            flat = {name: value for name, value in fields.items() if name != "locations"}
            more = {"params": flat} if method == "GET" else {"params": flat, "json": fields}
            head = served.orrery.timeline.head()[0]
            text = client.request(method, address.lstrip("/"), **more).text
            words = {one for one in (FILE, CALL, ROW) if one in text}
            told = reads(served.orrery, head)
            if words and not told:
                silent.append((method, path, words))
            assert all(one[0] == who and one[2] == made["project"] for one in told), told
            given |= {(path, one) for one in words}  # type: ignore[arg-type]
    return given, silent


def test_whatever_gives_away_what_may_hold_rows_is_told(served: Served, made: dict[str, dict[str, str]]) -> None:
    given, silent = walked(served, made["ann"], "vic")
    assert silent == [], "\n".join(map(str, silent))
    assert {word for _, word in given} == {FILE, CALL, ROW}, "the walk looks for words that are not there"
    assert {path for path, word in given if word == FILE} >= {
        "/get-artifact",
        "/api/2.0/mlflow-artifacts/artifacts/{artifact_path}",
    }
    told = reads(served.orrery)
    assert {("vic", what, MODEL) for what in ("artifacts", "traces", "evaluation rows")} <= {one[:3] for one in told}
    assert all(one[3] == ["carrier"] for one in told)
    said = "".join(str(one.to_json()) for one in served.orrery.timeline.read(kinds=["read"]))
    assert FILE not in said and CALL not in said and ROW not in said


def test_a_project_without_personal_columns_leaves_none(served: Served, made: dict[str, dict[str, str]]) -> None:
    given, silent = walked(served, made["bob"], "bob", less="ajax-api")
    assert {word for _, word in given} == {FILE, CALL, ROW}
    assert len(silent) == len({path for path, _ in given}), "all of it is given, and nobody is told"
    assert not [one for one in reads(served.orrery) if one[2] != MODEL or one[0] == "bob"]


def test_what_is_refused_or_only_listed_is_no_read(served: Served, made: dict[str, dict[str, str]]) -> None:
    head, own = served.orrery.timeline.head()[0], made["ann"]
    place = f"api/2.0/mlflow-artifacts/artifacts/{own['experiment']}/{own['run']}/artifacts"
    with served.client("bob") as bob, served.client("vic") as vic:
        assert bob.get(f"{place}/rows.txt").status_code == 404
        assert vic.get(f"{place}/none.txt").status_code >= 400
        assert vic.get("api/2.0/mlflow/runs/get", params={"run_id": own["run"]}).status_code == 200
        assert "rows.txt" in vic.get("api/2.0/mlflow/artifacts/list", params={"run_id": own["run"]}).text
        assert reads(served.orrery, head) == []
        assert vic.get(f"{place}/rows.txt").text == FILE
        assert reads(served.orrery, head) == [("vic", "artifacts", MODEL, ["carrier"])]
        asked = {"name": MODEL, "version": own["version"], "path": "rows.txt"}
        answer = vic.get("model-versions/get-artifact", params=asked)
        assert answer.text == FILE, answer.text
        assert reads(served.orrery, head) == [("vic", "artifacts", MODEL, ["carrier"])] * 2


def test_a_training_reads_what_is_its_own_work(served: Served, made: dict[str, dict[str, str]]) -> None:
    head, own = served.orrery.timeline.head()[0], made["ann"]
    place = f"api/2.0/mlflow-artifacts/artifacts/{own['experiment']}/{own['run']}/artifacts/rows.txt"
    with served.client("vic") as client:
        shown = bearer(training_pass(home_key(served.home), MODEL, 60))
        assert client.get(place, headers=shown).text == FILE
    assert reads(served.orrery, head) == []


# --- git -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def orrery(home: Settings, written: Path) -> Iterator[Orrery]:
    """Two projects with a repository, and one account that may read both."""
    shutil.copytree(written, home.home, dirs_exist_ok=True)
    made = Orrery(replace(home, access="required", replay=True))
    described(made, "ward", "patients", MARKED)
    described(made, "tides", "tides", CONTRACT)
    made.accounts.add("olaf", **BY)
    for name in ("ward", "tides"):
        made.accounts.give("olaf", "viewer", name, **BY)
        repository = made.settings.home / "repos" / f"{name}.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(repository)], check=True)
        tree = _git(repository, "mktree", given="")
        who = ["-c", "user.name=N", "-c", "user.email=n@example.org"]
        commit = _git(repository, *who, "commit-tree", tree, "-m", "Begin")
        _git(repository, "update-ref", "refs/heads/main", commit)
    yield made
    made.timeline.engine.dispose()


def _git(repository: Path, *words: str, given: str | None = None) -> str:
    command = ["git", f"--git-dir={repository}", *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("version", ["0", "2"])
def test_who_takes_commits_of_a_project_with_personal_columns_is_written_down(
    web: httpx.Client, address: str, orrery: Orrery, tmp_path: Path, version: str
) -> None:
    shown, place = token(orrery, "olaf", "git"), address.removeprefix("http://")

    def git(*words: str, name: str = "ward") -> None:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"}
        command = ["git", "-c", f"protocol.version={version}", *words, f"http://olaf:{shown}@{place}/git/{name}.git"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    git("ls-remote")
    git("clone", "-q", name="tides")
    assert reads(orrery) == [], "names of branches, and a project without personal columns"
    git("clone", "-q")
    git("clone", "-q", "--origin", "again", "--bare")
    assert reads(orrery) == [("olaf", "commits", "ward", ["carrier"])], "the second within a minute is counted"
    assert orrery.deeds("olaf").reads == 1
    (event,) = orrery.timeline.read("ward", kinds=["read"])
    assert event.actor == "olaf" and event.model == "ward"
