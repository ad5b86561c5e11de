"""The stock MLflow client with a token: each role gets what it allows, in its own projects, and nothing of others."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from web.mlflow_server import Served, serving

pytestmark = pytest.mark.filterwarnings("ignore")  # what MLflow's client warns its users of is not ours
MARK = "zanzibar"
"""Stands in all that the team air writes; the team sea must never read it."""
PROJECT = "flight-delay"
NOT_SERVED = re.compile(
    r".*(?:webhook|workspace|mcp_|unlink_traces|log_figure|log_image|log_stream).*|parse_prompt_uri|log_table|load_table"
    r"|start_trace|start_span|end_span|end_trace|log_artifacts|log_model_artifacts?|log_dict|refresh_.*"
    r"|.*_prompt.*|.*prompts.*"
)
"""Methods of the client that orrery does not serve, or that call others of the table and nothing else."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two teams on one orrery."""
    with serving(tmp_path_factory.mktemp("teams")) as found:
        yield found


class As:
    """Lets the stock client of this process show the token of an account; or of none."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self._served, self._patch = served, monkeypatch

    def __call__(self, who: str) -> Any:
        """Return a client."""
        import mlflow

        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "ORRERY_"))]:
            self._patch.delenv(name)
        self._patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        self._patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        self._patch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
        self._patch.setenv("GIT_PYTHON_REFRESH", "quiet")
        self._patch.setenv("MLFLOW_TRACKING_TOKEN", self._served.tokens[who])
        mlflow.set_tracking_uri(f"{self._served.url}/mlflow")
        mlflow.set_registry_uri(f"{self._served.url}/mlflow")
        return mlflow.MlflowClient()


@pytest.fixture
def be(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[As]:
    """Choose who the client is."""
    yield As(served, monkeypatch)
    import mlflow

    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


@pytest.fixture(scope="module")
def made(served: Served) -> Iterator[dict[str, str]]:
    """Let ann write one of each, everything with the mark in it; gives the ids."""
    with pytest.MonkeyPatch.context() as patch:
        yield _written(As(served, patch))


def _written(be: As) -> dict[str, str]:
    import mlflow
    import mlflow.sklearn
    import pandas as pd
    from sklearn.linear_model import Ridge

    client = be("ann")
    mlflow.set_experiment(f"{PROJECT}/{MARK}")
    experiment = client.get_experiment_by_name(f"{PROJECT}/{MARK}").experiment_id
    client.set_experiment_tag(experiment, MARK, MARK)
    mlflow.sklearn.autolog(log_models=False, log_datasets=True, silent=True)
    frame = pd.DataFrame({MARK: [1.0, 2.0, 3.0], "y": [1.0, 2.0, 2.5]})
    with mlflow.start_run(run_name=MARK) as run:
        model = Ridge(alpha=0.5).fit(frame[[MARK]], frame["y"])
        mlflow.log_param(MARK, MARK)
        mlflow.log_metric(MARK, 1.5)
        mlflow.set_tag(MARK, MARK)
        mlflow.log_text(MARK, f"{MARK}.txt")
        mlflow.log_input(mlflow.data.from_pandas(frame, name=MARK), context=MARK)
        kept = mlflow.sklearn.log_model(model, name=MARK, pip_requirements=["scikit-learn"], params={MARK: MARK})
    mlflow.sklearn.autolog(disable=True)
    assert client.get_run(run.info.run_id).data.params["alpha"] == "0.5"  # autologging works as ever
    version = mlflow.register_model(kept.model_uri, PROJECT, tags={MARK: MARK})
    client.set_registered_model_alias(PROJECT, "best", version.version)
    client.set_registered_model_tag(PROJECT, MARK, MARK)
    client.update_model_version(PROJECT, version.version, MARK)
    trace = client.start_trace(MARK, inputs={MARK: MARK}, experiment_id=experiment)
    client.end_trace(trace.trace_id, outputs={MARK: MARK})
    client.set_trace_tag(trace.trace_id, MARK, MARK)
    dataset = client.create_dataset(MARK, experiment, {MARK: MARK})
    return {
        "experiment": experiment,
        "second": client.create_experiment(f"{PROJECT}/second"),
        "run": run.info.run_id,
        "model": kept.model_id,
        "version": str(version.version),
        "trace": trace.trace_id,
        "dataset": dataset.dataset_id,
        "source": client.get_model_version(PROJECT, version.version).source,
    }


Call = Callable[[Any, dict[str, str], Path], Any]


def _metric(key: str) -> Any:
    from mlflow.entities import Metric

    return Metric(key, 2.0, 0, 0)


def _input() -> Any:
    from mlflow.entities import Dataset, DatasetInput

    return DatasetInput(Dataset("d", "1", "local", "{}"), [])


def _output(model: str) -> Any:
    from mlflow.entities import LoggedModelOutput

    return LoggedModelOutput(model, 0)


READS: dict[str, Call] = {
    "get_experiment": lambda c, i, t: c.get_experiment(i["experiment"]),
    "get_experiment_by_name": lambda c, i, t: _there(c.get_experiment_by_name(f"{PROJECT}/{MARK}")),
    "search_experiments": lambda c, i, t: c.search_experiments(view_type=3),
    "get_run": lambda c, i, t: c.get_run(i["run"]),
    "search_runs": lambda c, i, t: c.search_runs([i["experiment"]], run_view_type=3),
    "get_metric_history": lambda c, i, t: _there(c.get_metric_history(i["run"], MARK)),
    "list_artifacts": lambda c, i, t: c.list_artifacts(i["run"]),
    "download_artifacts": lambda c, i, t: Path(c.download_artifacts(i["run"], f"{MARK}.txt", str(t))).read_text(),
    "get_logged_model": lambda c, i, t: c.get_logged_model(i["model"]),
    "search_logged_models": lambda c, i, t: c.search_logged_models([i["experiment"]]),
    "list_logged_model_artifacts": lambda c, i, t: (c.list_logged_model_artifacts(i["model"]), MARK),
    "get_trace": lambda c, i, t: c.get_trace(i["trace"], display=False).to_json(),
    "search_traces": lambda c, i, t: [one.to_json() for one in c.search_traces([i["experiment"]])],
    "get_dataset": lambda c, i, t: c.get_dataset(i["dataset"]).to_dict(),
    "search_datasets": lambda c, i, t: [one.to_dict() for one in c.search_datasets()],
    "get_registered_model": lambda c, i, t: c.get_registered_model(PROJECT),
    "search_registered_models": lambda c, i, t: c.search_registered_models(),
    "get_latest_versions": lambda c, i, t: c.get_latest_versions(PROJECT),
    "get_model_version": lambda c, i, t: c.get_model_version(PROJECT, i["version"]),
    "get_model_version_by_alias": lambda c, i, t: c.get_model_version_by_alias(PROJECT, "best"),
    "get_model_version_download_uri": lambda c, i, t: (c.get_model_version_download_uri(PROJECT, i["version"]), MARK),
    "search_model_versions": lambda c, i, t: c.search_model_versions(),
}
WRITES: dict[str, Call] = {
    "create_experiment": lambda c, i, t: c.create_experiment(f"{PROJECT}/another"),
    "create_run": lambda c, i, t: c.create_run(i["experiment"]),
    "set_experiment_tag": lambda c, i, t: c.set_experiment_tag(i["experiment"], "k", "v"),
    "delete_experiment_tag": lambda c, i, t: c.delete_experiment_tag(i["experiment"], MARK),
    "log_batch": lambda c, i, t: c.log_batch(i["run"], [_metric("k")]),
    "log_metric": lambda c, i, t: c.log_metric(i["run"], MARK, 3.0),
    "log_param": lambda c, i, t: c.log_param(i["run"], "k", "v"),
    "log_text": lambda c, i, t: c.log_text(i["run"], "text", "more.txt"),
    "log_artifact": lambda c, i, t: c.log_artifact(i["run"], str(_file(t))),
    "log_inputs": lambda c, i, t: c.log_inputs(i["run"], [_input()]),
    "log_outputs": lambda c, i, t: c.log_outputs(i["run"], [_output("m-" + "0" * 32)]),
    "set_tag": lambda c, i, t: c.set_tag(i["run"], "k", "v"),
    "delete_tag": lambda c, i, t: c.delete_tag(i["run"], MARK),
    "update_run": lambda c, i, t: c.update_run(i["run"], name="another"),
    "set_terminated": lambda c, i, t: c.set_terminated(i["run"]),
    "create_logged_model": lambda c, i, t: c.create_logged_model(i["experiment"]),
    "log_model_params": lambda c, i, t: c.log_model_params(i["model"], {"k": "v"}),
    "set_logged_model_tags": lambda c, i, t: c.set_logged_model_tags(i["model"], {"k": "v", MARK: MARK}),
    "delete_logged_model_tag": lambda c, i, t: c.delete_logged_model_tag(i["model"], MARK),
    "finalize_logged_model": lambda c, i, t: c.finalize_logged_model(i["model"], "READY"),
    "set_trace_tag": lambda c, i, t: c.set_trace_tag(i["trace"], "k", "v"),
    "delete_trace_tag": lambda c, i, t: c.delete_trace_tag(i["trace"], MARK),
    "link_traces_to_run": lambda c, i, t: c.link_traces_to_run([i["trace"]], i["run"]),
    "create_dataset": lambda c, i, t: c.create_dataset("another", i["experiment"]),
    "set_dataset_tags": lambda c, i, t: c.set_dataset_tags(i["dataset"], {"k": "v"}),
    "add_dataset_to_experiments": lambda c, i, t: c.add_dataset_to_experiments(i["dataset"], [i["second"]]),
    "create_registered_model": lambda c, i, t: c.create_registered_model(f"{PROJECT}.small"),
    "update_registered_model": lambda c, i, t: c.update_registered_model(PROJECT, "words"),
    "set_registered_model_tag": lambda c, i, t: c.set_registered_model_tag(PROJECT, "k", "v"),
    "delete_registered_model_tag": lambda c, i, t: c.delete_registered_model_tag(PROJECT, MARK),
    "set_registered_model_alias": lambda c, i, t: c.set_registered_model_alias(PROJECT, "other", i["version"]),
    "delete_registered_model_alias": lambda c, i, t: c.delete_registered_model_alias(PROJECT, "best"),
    "create_model_version": lambda c, i, t: c.create_model_version(PROJECT, i["source"], model_id=i["model"]),
    "copy_model_version": lambda c, i, t: c.copy_model_version(f"models:/{PROJECT}/{i['version']}", f"{PROJECT}.copy"),
    "update_model_version": lambda c, i, t: c.update_model_version(PROJECT, i["version"], "words"),
    "set_model_version_tag": lambda c, i, t: c.set_model_version_tag(PROJECT, i["version"], "k", "v"),
    "delete_model_version_tag": lambda c, i, t: c.delete_model_version_tag(PROJECT, i["version"], MARK),
    "transition_model_version_stage": lambda c, i, t: c.transition_model_version_stage(
        PROJECT, i["version"], "Production"
    ),
    # What follows takes things away, in an order in which each is still there.
    "delete_run": lambda c, i, t: c.delete_run(i["run"]),
    "restore_run": lambda c, i, t: c.restore_run(i["run"]),
    "delete_traces": lambda c, i, t: _there(c.delete_traces(i["experiment"], trace_ids=[i["trace"]])),
    "remove_dataset_from_experiments": lambda c, i, t: _there(
        c.remove_dataset_from_experiments(i["dataset"], [i["second"]])
    ),
    "delete_logged_model": lambda c, i, t: c.delete_logged_model(i["model"]),
    "delete_model_version": lambda c, i, t: c.delete_model_version(PROJECT, i["version"]),
    "rename_registered_model": lambda c, i, t: c.rename_registered_model(PROJECT, f"{PROJECT}.old"),
    "delete_registered_model": lambda c, i, t: c.delete_registered_model(f"{PROJECT}.old"),
    "rename_experiment": lambda c, i, t: c.rename_experiment(i["experiment"], f"{PROJECT}/renamed"),
    "delete_experiment": lambda c, i, t: c.delete_experiment(i["experiment"]),
    "restore_experiment": lambda c, i, t: c.restore_experiment(i["experiment"]),
}
NO_ROW = {"delete_dataset", "delete_dataset_tag", "get_model_version_stages", "get_parent_run"}
"""What succeeds where nothing is there (looked at below), what answers without any row, what asks for two runs."""


def _there(found: Any) -> Any:
    assert found, "nothing is there"
    return found


def _file(folder: Path) -> Path:
    path = folder / "file.txt"
    path.write_text("text")
    return path


def rows(served: Served) -> list[str]:
    """Everything that MLflow's tables hold, and the files that are kept."""
    with sqlite3.connect(served.home / "orrery.db") as database:
        lines = [line for line in database.iterdump() if not re.match(r'INSERT INTO "?(?:events|access_|denied)', line)]
    files = sorted(f"{one.relative_to(served.home)}" for one in (served.home / "artifacts").rglob("*"))
    return [*lines, *files]


def said(found: Any) -> str:
    """All that an answer holds, as text."""
    return f"{found}" if not isinstance(found, list | tuple) else " ".join(said(one) for one in found)


def test_every_method_of_the_client_is_looked_at() -> None:
    import mlflow

    methods = {name for name, _ in inspect.getmembers(mlflow.MlflowClient, inspect.isfunction) if name[0] != "_"}
    assert {name for name in methods if not NOT_SERVED.fullmatch(name)} == {*READS, *WRITES, *NO_ROW}


def test_each_team_reads_its_own(served: Served, made: dict[str, str], be: As, tmp_path: Path) -> None:
    for who in ("ann", "vic", "eve"):
        client = be(who)
        for name, call in READS.items():
            assert MARK in said(call(client, made, tmp_path)), (who, name)


@pytest.mark.parametrize("who", ["bob", "nil"])
def test_other_teams_read_and_change_nothing(
    served: Served, made: dict[str, str], be: As, tmp_path: Path, who: str
) -> None:
    before, client, heard = rows(served), be(who), {}
    for name, call in {**READS, **WRITES}.items():
        try:
            heard[name] = said(call(client, made, tmp_path))
        except Exception as error:  # whatever it is: it is what they read
            heard[name] = f"{type(error).__name__}: {error}"
            assert "500" not in heard[name] and "INTERNAL" not in heard[name], (name, heard[name])
    client.delete_dataset(made["dataset"])
    client.delete_dataset_tag(made["dataset"], MARK)
    told = {name: words for name, words in heard.items() if MARK in words.replace(f"{PROJECT}/{MARK}", "")}
    assert told == {}
    assert rows(served) == before
    assert [name for name in WRITES if not re.match(r"\w+(Error|Exception)", heard[name])] == []


def test_a_viewer_changes_nothing(served: Served, made: dict[str, str], be: As, tmp_path: Path) -> None:
    before, client = rows(served), be("vic")
    let_in = {}
    for name, call in WRITES.items():
        try:
            let_in[name] = call(client, made, tmp_path)
        except Exception as error:  # whatever it is: it is what they read
            assert re.search("may not|PERMISSION_DENIED|403|nothing is there|DOES_NOT_EXIST", str(error)), (name, error)
        assert rows(served) == before, name
    assert let_in == {}
    denied = [one for one in served.orrery.timeline.read(kinds=["denied"]) if one.actor == "vic"]
    assert any("runs/create" in one.why or "experiments/create" in one.why for one in denied), denied


def test_searches_and_their_pages_are_narrowed(served: Served, made: dict[str, str], be: As) -> None:
    client = be("bob")
    for number in range(3):
        client.create_experiment(f"tides/{number}")
        client.create_registered_model(f"tides.{number}")
    found, token = [], None
    while True:
        page = client.search_experiments(max_results=1, page_token=token)
        found, token = [*found, *(one.name for one in page)], page.token
        if not token:
            break
    assert sorted(found) == ["tides/0", "tides/1", "tides/2"]
    names = [one.name for one in client.search_registered_models(max_results=2)]
    assert len(names) == 2 and all(one.startswith("tides") for one in names)
    assert client.search_model_versions(f"name = '{PROJECT}'") == []
    assert client.search_model_versions(f"run_id = '{made['run']}'") == []
    every = {one.name for one in be("eve").search_experiments()}
    assert {"Default", "tides/0", f"{PROJECT}/{MARK}"} <= every
    assert be("nil").search_experiments() == [] == be("nil").search_registered_models()


@pytest.mark.parametrize(
    "name", ["tidesx", "flight-delayed", "Default2", "flight_delay/x", f"x/{PROJECT}", "TIDES", "/tides", "tides2/x"]
)
def test_a_name_that_only_looks_like_ones_own_is_refused(
    served: Served, made: dict[str, str], be: As, name: str
) -> None:
    from mlflow.exceptions import MlflowException

    client = be("bob")
    with pytest.raises(MlflowException, match="may not track"):
        client.create_experiment(name)
    with pytest.raises(MlflowException, match="may not track"):
        client.create_registered_model(name.replace("/", "."))
    with pytest.raises(MlflowException, match="may not track"):
        client.create_run("0")  # the experiment Default belongs to nobody


def test_what_is_ones_own_cannot_be_moved_to_others_or_borrow_their_files(
    served: Served, made: dict[str, str], be: As
) -> None:
    from mlflow.exceptions import MlflowException

    client = be("bob")
    mine = client.create_experiment("tides/moves")
    run = client.create_run(mine).info.run_id
    before = rows(served)
    refused: list[Callable[[], Any]] = [
        lambda: client.rename_experiment(mine, f"{PROJECT}/taken"),
        lambda: client.create_experiment("tides/place", f"mlflow-artifacts:/{made['experiment']}"),
        lambda: client.create_experiment("tides/disk", "file:///etc"),
        lambda: client.create_experiment("tides/path", "/etc"),
        lambda: client.create_experiment("tides/cloud", "s3://secrets/of"),
        lambda: client.create_model_version("tides.0", made["source"]),
        lambda: client.create_model_version("tides.0", made["source"], run_id=made["run"]),
        lambda: client.create_model_version("tides.0", made["source"], run_id=run),
        lambda: client.create_model_version("tides.0", made["source"], model_id=made["model"]),
        lambda: client.create_model_version("tides.0", f"models:/{made['model']}", model_id=made["model"]),
        lambda: client.create_model_version("tides.0", f"runs:/{made['run']}/{MARK}.txt", run_id=made["run"]),
        lambda: client.create_model_version("tides.0", "/etc"),
        lambda: client.create_model_version("tides.0", "s3://secrets/of"),
        lambda: client.create_model_version("tides.0", f"models:/{PROJECT}/1"),
        lambda: client.copy_model_version(f"models:/{PROJECT}/1", "tides.0"),
        lambda: client.add_dataset_to_experiments(made["dataset"], [mine]),
    ]
    for number, call in enumerate(refused):
        with pytest.raises(MlflowException):
            call()
            pytest.fail(f"{number} was let in")
    assert rows(served) == before
    trace = client.start_trace("t", experiment_id=mine)
    client.end_trace(trace.trace_id)
    place = f"mlflow-artifacts:/{made['experiment']}/traces/{made['trace']}/artifacts"
    with served.client("bob") as bob:
        for version in ("2.0", "3.0"):
            asked = {"key": "mlflow.artifactLocation", "value": place}
            answer = bob.patch(f"api/{version}/mlflow/traces/{trace.trace_id}/tags", json=asked)
            assert answer.status_code == 400 and "Files are kept by this server" in answer.text, answer.text
            asked["key"] = "mine"
            assert bob.patch(f"api/{version}/mlflow/traces/{trace.trace_id}/tags", json=asked).status_code == 200
    with pytest.raises(MlflowException):  # also who has a role everywhere makes the server read no other place
        be("eve").create_experiment("disk", "file:///etc")


def artifact_paths(made: dict[str, str]) -> list[str]:
    own = f"{made['experiment']}/{made['run']}/artifacts/{MARK}.txt"
    return [
        own,
        f"./{own}",
        f"%2e/{own}",
        f"9999/../{own}",
        f"9999/%2e%2e/{own}",
        f"9999/%252e%252e/{own}",
        f"9999/%25252e%25252e/{own}",
        own.replace("/", "%2F"),
        own.replace("/", "%252F"),
        f"%2F{own}",
        f"0{own}",
        f"file:///{own}",
        f"9999/..%5c{own}",
        f"MINE/../{own}",
        f"MINE/%2e%2e/{own}",
        f"MINE/%252e%252e/{own}",
        f"MINE%00/../{own}",
    ]


def test_no_way_of_writing_a_path_leads_to_files_of_others(served: Served, made: dict[str, str], be: As) -> None:
    mine = be("bob").create_experiment("tides/files")
    proxy = f"{served.url}/mlflow/api/2.0/mlflow-artifacts/artifacts"
    with served.client("bob") as bob, served.client("ann") as ann:
        own = f"{made['experiment']}/{made['run']}/artifacts/{MARK}.txt"
        assert ann.get(f"{proxy}/{own}").text == MARK
        assert MARK in ann.get(proxy, params={"path": own.rpartition("/")[0]}).text
        before = rows(served)
        for path in artifact_paths(made):
            path = path.replace("MINE", mine)
            for prefix in (proxy, proxy.replace("/api/", "/ajax-api/")):
                address = httpx.URL(served.url).copy_with(raw_path=f"{prefix[len(served.url) :]}/{path}".encode())
                for method in ("GET", "PUT", "DELETE"):
                    answer = bob.request(method, address, content=b"changed" if method == "PUT" else None)
                    assert answer.status_code in (400, 403, 404, 405), (method, path, answer.status_code)
                    assert answer.text.replace(f"{MARK}.txt", "").find(MARK) < 0, path
                listing = bob.get(prefix, params={"path": path.rpartition("/")[0]})
                assert f"{MARK}.txt" not in listing.text and listing.status_code >= 400, (path, listing.text)
        for asked in ({}, {"path": ""}, {"path": "."}, {"path": mine + "/.."}):
            assert bob.get(proxy, params=asked).status_code >= 400  # what there is of others is nobody's business
        twice = bob.get(f"{proxy}?path={mine}&path={made['experiment']}/{made['run']}/artifacts")
        assert MARK not in twice.text and twice.status_code >= 400
        assert rows(served) == before
        assert bob.put(f"{proxy}/{mine}/x/artifacts/a.txt", content=b"mine").status_code == 200
        assert bob.get(f"{proxy}/{mine}/x/artifacts/a.txt").text == "mine"
    with served.client("vic") as vic:
        assert vic.get(f"{proxy}/{own}").text == MARK and vic.put(f"{proxy}/{own}", content=b"x").status_code == 403
        assert vic.get(f"{proxy}/{mine}/x/artifacts/a.txt").status_code == 404


def routes() -> list[tuple[str, str]]:
    """Every method and address of MLflow's server that orrery lets through, from MLflow's own list."""
    from mlflow.server import app

    from orrery.registry.server import ALLOWED, REFUSED

    found = []
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        if ALLOWED.fullmatch(path) and not REFUSED.fullmatch(path) and not path.startswith("/static-files"):
            found += [(method, path) for method in rule.methods - {"HEAD", "OPTIONS"}]
    return sorted(set(found))


GRAPHQL = """
query { mlflowGetRun(input: {runId: "%(run)s"}) { run { info { runName } data { tags { key value } }
  experiment { name } modelVersions { name } } apiError { message } }
  mlflowGetExperiment(input: {experimentId: "%(experiment)s"}) { experiment { name } apiError { message } }
  mlflowListArtifacts(input: {runId: "%(run)s"}) { files { path } apiError { message } }
  mlflowSearchModelVersions(input: {}) { modelVersions { name source tags { key } } apiError { message } }
  mlflowGetMetricHistoryBulkInterval(input: {runIds: ["%(run)s"], metricKey: "zanzibar", maxResults: 9})
  { metrics { value runId key } apiError { message } } }
"""
MUTATION = """
mutation { mlflowSearchRuns(input: {experimentIds: ["%(experiment)s"]}) { runs { info { runName } }
  apiError { message } }
  mlflowSearchDatasets(input: {experimentIds: ["%(experiment)s"]}) { datasetSummaries { name } apiError { message } } }
"""


def asked_for(made: dict[str, str]) -> dict[str, Any]:
    """All fields that any address takes, with what belongs to the team air in each."""
    one, experiment, trace = made["run"], made["experiment"], made["trace"]
    return {
        "experiment_id": experiment,
        "experiment_ids": [experiment],
        "experiment_name": f"{PROJECT}/{MARK}",
        "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}],
        "run_id": one,
        "run_uuid": one,
        "run_ids": [one],
        "model_id": made["model"],
        "name": PROJECT,
        "new_name": f"{PROJECT}.old",
        "version": made["version"],
        "alias": "best",
        "stage": "Production",
        "metric_key": MARK,
        "key": "mark",
        "value": "1",
        "path": f"{MARK}.txt",
        "artifact_directory_path": "",
        "artifact_file_path": "MLmodel",
        "request_id": trace,
        "trace_id": trace,
        "trace_ids": [trace],
        "request_ids": [trace],
        "max_results": 100,
        "filter": "",
        "view_type": "ALL",
    }


def test_every_address_of_mlflow_as_another_team(served: Served, made: dict[str, str]) -> None:
    """Whatever MLflow's server answers at, known or to come: the mark is in no answer, and nothing is changed."""
    found = routes()
    assert len(found) > 150
    fields = asked_for(made)
    filled = {"artifact_path": f"{made['experiment']}/{made['run']}/artifacts/{MARK}.txt", "tag_key": MARK, "key": MARK}
    filled |= {"dataset_id": made["dataset"], "model_id": made["model"], "assessment_id": "a-1"}
    filled |= {"trace_id": made["trace"], "request_id": made["trace"]}
    before, shown, faults = rows(served), set(), []
    with served.client("bob") as bob, served.client("vic") as vic:
        for method, path in found:
            address = re.sub(r"{(\w+)}", lambda match: filled[match[1]], path)
            flat = {name: value for name, value in fields.items() if name != "locations"}
            more = {"params": flat} if method == "GET" else {"params": flat, "json": fields}
            answer = bob.request(method, address.lstrip("/"), **more)
            told = re.sub(rf"{PROJECT}/{MARK}|{MARK}\.txt", "", answer.text)
            if MARK in told or (made["run"] in told and answer.status_code < 400):
                faults.append((method, path, answer.status_code, told[:200]))
            if method == "GET" and MARK in vic.request(method, address.lstrip("/"), **more).text:
                shown.add(path)
        for text in (GRAPHQL, MUTATION):
            asked = {"query": text % made, "operationName": None, "variables": {}}
            assert MARK not in bob.post("graphql", json=asked).text
            assert MARK in vic.post("graphql", json=asked).text
    assert faults == []
    assert rows(served) == before
    assert len(shown) > 20, shown  # who may read it is shown it at these addresses


def test_name_and_password_are_as_good_as_a_token(served: Served, made: dict[str, str], be: As) -> None:
    from mlflow.exceptions import MlflowException

    words = "ann's own four moons"
    served.orrery.accounts.choose_password("ann", words, by="tom", why="For the test.")
    client = be("ann")
    del os.environ["MLFLOW_TRACKING_TOKEN"]
    os.environ |= {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": words}
    try:
        assert client.get_run(made["run"]).info.run_name == MARK
        os.environ["MLFLOW_TRACKING_PASSWORD"] = "another"
        with pytest.raises(MlflowException, match="do not fit"):
            client.get_run(made["run"])
    finally:
        del os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]


def test_a_training_tracks_in_its_own_project(served: Served, made: dict[str, str], be: As) -> None:
    from mlflow.exceptions import MlflowException

    from orrery.access.homekey import home_key, training_pass

    passed = training_pass(home_key(served.home), "tides", 600)
    client = As(Served(served.url, served.home, {"training": passed}, served.orrery), pytest.MonkeyPatch())("training")
    assert client.create_run(client.create_experiment("tides/training")).info.run_id
    with pytest.raises(MlflowException):
        client.get_run(made["run"])
    with pytest.raises(MlflowException, match="may not track"):
        client.create_run(made["experiment"])


class Evil:
    """Runs when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def test_a_model_with_code_in_it_is_kept_and_never_run_here(served: Served, be: As, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    content = pickle.dumps(Evil(canary))
    pickle.loads(content)
    assert canary.is_dir()  # the control: it does run where it is unpickled
    canary.rmdir()
    client = be("bob")
    experiment = client.create_experiment("tides/evil")
    model = client.create_logged_model(experiment, name="evil")
    (tmp_path / "m" / "code").mkdir(parents=True)
    for name in ("model.pkl", "python_model.pkl", "data.pkl"):
        (tmp_path / "m" / name).write_bytes(content)
    code = f"import os; os.mkdir({str(canary)!r})"
    (tmp_path / "m" / "code" / "loader.py").write_text(code)
    flavours = {"python_function": {"loader_module": "loader", "code": "code", "model_path": "model.pkl"}}
    flavours["sklearn"] = {"pickled_model": "model.pkl", "serialization_format": "pickle"}
    (tmp_path / "m" / "MLmodel").write_text(json.dumps({"flavors": flavours, "mlflow_version": "3.17.2"}))
    client.log_model_artifacts(model.model_id, str(tmp_path / "m"))
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model("tides.evil")
    version = client.create_model_version("tides.evil", f"models:/{model.model_id}", model_id=model.model_id)
    yaml = f"!!python/object/apply:os.mkdir [{str(canary)!r}]"
    with served.client("bob") as bob:
        where = f"api/2.0/mlflow-artifacts/artifacts/{experiment}/models/{model.model_id}/artifacts/MLmodel"
        assert bob.put(where, content=yaml.encode()).status_code == 200
        again = {"name": "tides.evil", "source": f"models:/{model.model_id}", "model_id": model.model_id}
        bob.post("api/2.0/mlflow/model-versions/create", json=again)  # the server reads the file MLmodel
        asked = {"name": "tides.evil", "version": version.version, "path": "model.pkl"}
        assert bob.get("model-versions/get-artifact", params=asked).content == content
        for path in ("model-versions/get", "model-versions/get-download-uri"):
            assert bob.get(f"api/2.0/mlflow/{path}", params=asked).status_code == 200
        listed = bob.get(f"api/2.0/mlflow/logged-models/{model.model_id}/artifacts/directories")
        assert "model.pkl" in listed.text
    assert not canary.exists()


def test_each_table_of_mlflow_belongs_somewhere_or_to_nobody() -> None:
    from mlflow.store.db.base_sql_model import Base

    from orrery.registry.sight import belongs

    nobodys = {mapper.local_table.name for mapper in Base.registry.mappers if not belongs(mapper.class_)}
    assert not {one for one in nobodys if re.search("run|experiment|trace|metric|param|tag|model_version", one)} - {
        "endpoint_tags",
        "mcp_server_tags",
        "mcp_server_version_tags",
        "endpoint_model_mappings",
    }, nobodys


def test_the_owner_of_the_files_and_roles_in_the_project_change_what_is_theirs(
    served: Served, made: dict[str, str], be: As, tmp_path: Path
) -> None:
    """The last one here: it takes away what the others look at."""
    client = be("ann")
    for name, call in WRITES.items():
        try:
            call(client, made, tmp_path)
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error
    events = [json.dumps(one.to_json()) for one in served.orrery.timeline.read(kinds=["registry"])]
    assert any('"ann"' in one and "delete_registered_model" in one for one in events)
