"""The stock MLflow client against orrery's address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import httpx
import pytest

AUTOLOG = """
import json, logging, os, tempfile
import mlflow, mlflow.sklearn
from mlflow import MlflowClient
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

mlflow.set_experiment("diabetes-notebook")
mlflow.sklearn.autolog(log_models=False)
x, y = load_diabetes(return_X_y=True)
with mlflow.start_run() as run:
    model = Ridge(alpha=0.5).fit(x, y)
client = MlflowClient()
logged = client.get_run(run.info.run_id).data
kept = {"registered_model_name": "diabetes", "pip_requirements": ["scikit-learn"]}
mlflow.sklearn.log_model(model, name="model", **kept)
client.set_registered_model_alias("diabetes", "champion", 1)
client.set_model_version_tag("diabetes", "1", "checked", "yes")
loaded = mlflow.pyfunc.load_model("models:/diabetes@champion")
same = abs(loaded.predict(x) - model.predict(x)).max()
client.delete_model_version("diabetes", "1")
print(json.dumps({"params": logged.params, "metrics": logged.metrics, "same": float(same)}))
"""


def client(code: str, url: str, *args: str, **more: str) -> str:
    """Run code in a process with nothing but the address of orrery."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("ORRERY_", "MLFLOW_", "_MLFLOW"))}
    environment |= {
        "MLFLOW_TRACKING_URI": f"{url}/mlflow",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *args],
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_autolog_and_the_registry_work_and_show_on_the_timeline(served, open_timeline):
    url, settings = served
    said = json.loads(client(AUTOLOG, url, MLFLOW_TRACKING_USERNAME="nora", MLFLOW_TRACKING_PASSWORD="x"))
    assert said["params"]["alpha"] == "0.5" and said["metrics"]["training_r2_score"] > 0.4
    assert said["same"] == 0
    events = list(open_timeline(settings).read("diabetes", kinds=["registry"]))
    assert [event.data["operation"] for event in events] == [
        "create_registered_model",
        "create_model_version",
        "set_registered_model_alias",
        "set_model_version_tag",
        "delete_model_version",
    ]
    assert {event.actor for event in events} == {"nora"}
    assert [event.version for event in events] == [None, 1, 1, 1, 1]
    assert events[3].data["key"] == "checked" and events[3].data["value"] == "yes"
    assert (settings.home / "artifacts").is_dir()


@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/mlflow/assistant/config",
        "/ajax-api/3.0/mlflow/gateway/supported-providers",
        "/gateway/mlflow/v1/models",
        "/ajax-api/2.0/mlflow/gateway-proxy",
        "/ajax-api/3.0/jobs/x",
        "/api/2.0/mlflow/webhooks",
        "/ajax-api/2.0/mlflow/runs/create-promptlab-run",
        "/api/3.0/mlflow/mcp-servers",
        "/v1/traces",
        "/api/2.0/mlflow/experiments/../../../gateway/mlflow/v1/models",
        "/api/2.0/mlflow/experiments/%2e%2e/%2e%2e/gateway",
        "//gateway/x",
    ],
)
def test_what_is_not_tracking_registry_or_artifacts_is_not_there(served, path):
    with httpx.Client() as http:
        for method in ("GET", "POST"):
            response = http.request(method, httpx.URL(served[0]).copy_with(raw_path=b"/mlflow" + path.encode()))
            assert response.status_code == 404, response.text


def test_pages_and_rest_are_there(served):
    url = f"{served[0]}/mlflow"
    page = httpx.get(url, follow_redirects=True)
    assert page.status_code == 200 and "<title>MLflow</title>" in page.text and str(page.url).endswith("/mlflow/")
    script = page.text.split('<script defer="defer" src="')[1].split('"')[0]
    assert httpx.get(f"{url}/{script}").status_code == 200
    found = httpx.post(f"{url}/ajax-api/2.0/mlflow/experiments/search", json={"max_results": 10})
    assert found.status_code == 200 and found.json()["experiments"]


def test_other_sites_and_other_hosts_are_refused(served):
    url = f"{served[0]}/mlflow/api/2.0/mlflow/registered-models/create"
    foreign = httpx.post(url, json={"name": "stolen"}, headers={"Origin": "https://elsewhere.example"})
    assert foreign.status_code == 403 and "Cross-origin" in foreign.text
    assert httpx.post(url, json={"name": "mine"}, headers={"Origin": served[0]}).status_code == 200
    rebound = httpx.get(f"{served[0]}/mlflow/", headers={"Host": "elsewhere.example"})
    assert rebound.status_code == 403


def test_actor_is_told_by_the_header(served, open_timeline):
    url = f"{served[0]}/mlflow/api/2.0/mlflow/registered-models/create"
    assert httpx.post(url, json={"name": "by-li"}, headers={"X-Orrery-Actor": "li"}).status_code == 200
    assert httpx.post(url, json={"name": "by-nobody"}).status_code == 200
    timeline = open_timeline(served[1])
    assert [event.actor for event in timeline.read("by-li")] == ["li"]
    assert [event.actor for event in timeline.read("by-nobody")] == ["mlflow-client"]


LOADER = """
class Twice:
    def predict(self, frame):
        return frame * 2


def _load_pyfunc(path):
    return Twice()
"""
MLMODEL = """
flavors:
  python_function:
    loader_module: twice_loader
    code: code
    python_version: 3.11.0
mlflow_version: 3.17.2
"""
LOAD = """
import mlflow, numpy as np
loaded = mlflow.pyfunc.load_model("models:/twice@champion")
print(float(loaded.predict(np.array([[21.0]]))[0][0]))
"""


@pytest.mark.slow
def test_a_version_that_orrery_registered_is_loaded_through_orrery_and_cannot_be_overwritten(
    served, open_timeline, tmp_path
):
    from orrery.registry.versions import Registry, artifact_path, delete_artifact, set_alias
    from orrery.timeline.event import Draft

    url, settings = served
    timeline = open_timeline(settings)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "twice_loader.py").write_text(LOADER)
    (tmp_path / "MLmodel").write_text(MLMODEL)
    draft = Draft(kind="trained", actor="orrery/training", why="Because.")
    version = Registry(settings, timeline).register("twice", tmp_path, run={}, draft_for=lambda n: draft, key="k1")
    with timeline.writing() as connection:
        set_alias(connection, "twice", "champion", version)
    assert client(LOAD, url) == "42.0"

    where = artifact_path(settings, timeline, "twice", version).relative_to(settings.home / "artifacts")
    proxy = f"{url}/mlflow/api/2.0/mlflow-artifacts/artifacts"
    assert httpx.get(f"{proxy}/{where}/MLmodel").text == MLMODEL
    assert httpx.put(f"{proxy}/{where}/MLmodel", content=b"changed").status_code == 403
    assert httpx.delete(f"{proxy}/{where}").status_code == 403
    assert httpx.delete(f"{proxy}/{where.parts[0]}").status_code == 403
    assert httpx.put(f"{proxy}/elsewhere/file", content=b"free").status_code == 200
    assert httpx.get(f"{proxy}/{where}/MLmodel").text == MLMODEL

    delete_artifact(settings, timeline, "twice", version)
    delete_artifact(settings, timeline, "twice", version)
    assert httpx.get(f"{proxy}/{where}/MLmodel").status_code >= 400
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{url}/mlflow/api/2.0/mlflow/registered-models/alias?name=twice&alias=champion")
    assert [event.kind for event in timeline.read("twice", version=version)] == ["trained"]
