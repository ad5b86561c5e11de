"""People say yes and no over HTTP, and everything follows: environments, the inference server, MLflow's aliases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from acceptance.support import PIPELINE, QUIET, Platform, asked_all_along, cli, wait, write_project
from orrery.types import PRODUCTION, format_instant

TIDES = "/api/models/tides"
WHY = {"why": "Because the test says so."}
STRICT = QUIET.replace("[gates]", "[gates]\nabsolute_error = { max = 0.0001 }") + '[serving]\nbroken = "mask"\n'
TOLERANT = PIPELINE.replace('"wind")', '"wind").fill_null(0.0)')
REFUSING = QUIET + '[serving]\nbroken = "refuse"\n'
LOAD = """
import json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/tides@champion")
rows = pandas.DataFrame(json.loads(sys.argv[1]))
rows["at"] = pandas.to_datetime(rows["at"])
print(json.dumps([float(value) for value in model.predict(rows).ravel()]))
"""


@pytest.fixture(scope="module")
def second(platform: Platform) -> str:
    """What the push said that became version 2, which a gate refused."""
    return platform.pushed(write_project(platform.tides, toml=STRICT, pipeline=TOLERANT), "tides", "strict")


@pytest.fixture(scope="module")
def third(platform: Platform, second: str) -> str:
    """What the push said that became version 3, which is as good as version 1."""
    said = platform.pushed(write_project(platform.tides, toml=REFUSING), "tides", "as good")
    wait(lambda: 3 in [version.number for version, _, _ in platform.orrery.model("tides").waiting()])
    return said


def order(platform: Platform, what: str, status: int = 201, by: str = "mara", **body: object) -> dict[str, str]:
    answer = platform.api("POST", f"{TIDES}/{what}", by=by, json=body)
    assert answer.status_code == status, answer.text
    said: dict[str, str] = answer.json().get("error", {})
    return said


def test_a_refused_gate_is_overridden_with_a_reason(platform: Platform, second: str) -> None:
    """Only by its name and with a reason; then the version goes on, to where people are asked again."""
    assert "gates REFUSED" in second and "absolute_error refused" in second
    issues = [event for event in platform.events("tides", "issue_opened") if event.version == 2]
    assert [event.data["owner"] for event in issues] == ["nora"] and "gates refused" in issues[0].why
    assert "Override" in order(platform, "versions/2/approve", 403, **WHY)["todo"]
    assert "why" in order(platform, "versions/2/approve", 422, gate="absolute_error")["what"]
    assert "'brier' did not refuse" in order(platform, "versions/2/approve", 404, gate="brier", **WHY)["what"]
    assert platform.orrery.model("tides").champion("staging").number == 1  # type: ignore[union-attr]
    order(platform, "versions/2/approve", gate="absolute_error", **WHY)
    wait(lambda: platform.orrery.model("tides").lane("staging").champion == 2)
    (override,) = [event for event in platform.events("tides", "approved") if event.version == 2]
    assert override.actor == "mara" and override.data["gate"] == "absolute_error"
    staging = f"{platform.settings.serving_url}/env/staging/models/tides/predict"
    wait(lambda: httpx.post(staging, json={"moon": 0.0, "wind": 1.0}).json().get("version") == 2)
    masked = httpx.post(staging, json={"moon": 1e9, "wind": 1.0})
    plain = httpx.post(staging, json={"moon": 0.0, "wind": 1.0})
    assert masked.status_code == 200 and masked.json()["parameters"]["broken"] == [["moon"]]
    assert masked.json()["prediction"] == plain.json()["prediction"]
    assert platform.served() == 1


def test_a_rejection_ends_a_versions_way(platform: Platform, second: str) -> None:
    """With a reason, and an issue to the owner; it cannot be approved afterwards."""
    assert "why" in order(platform, "versions/2/reject", 422, why=" ")["what"]
    order(platform, "versions/2/reject", why="too rough")
    (issue,) = [event for event in platform.events("tides", "issue_opened") if "rejected by mara" in event.why]
    assert (issue.data["owner"], issue.version) == ("nora", 2) and "too rough" in issue.why
    assert "rejected" in order(platform, "versions/2/approve", 403, **WHY)["what"]
    assert 2 not in [version.number for version, _, _ in platform.orrery.model("tides").waiting()]
    assert platform.served() == 1


@pytest.mark.filterwarnings("default")
def test_promotion_and_rollback_are_followed_while_requests_are_answered(
    platform: Platform, third: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inference server within seconds and without one failed request; MLflow's alias at once."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(f"{platform.settings.control_url}/mlflow", f"{platform.settings.control_url}/mlflow")

    def alias() -> int:
        return int(client.get_model_version_by_alias("tides", "champion").version)

    assert alias() == 1
    assert "why" in order(platform, "versions/3/approve", 422)["what"]
    with asked_all_along(platform, every=0.05) as answers:
        order(platform, "versions/3/approve", **WHY)
        wait(lambda: platform.served() == 3, 20)
        assert alias() == 3
        answer = platform.ask(moon=1e9)
        assert answer.status_code == 422 and "Column moon of row 0 holds" in answer.json()["error"]
        order(platform, "rollback", 422)
        order(platform, "rollback", **WHY)
        assert alias() == 1
        wait(lambda: platform.served() == 1, 20)
    assert {version for _, version in answers} == {1, 3}
    kinds = [event.kind for event in platform.events("tides") if event.version == 3 and event.environment == PRODUCTION]
    assert kinds == ["review_requested", "approved", "promoted", "retired"]


def test_a_deleted_version_leaves_the_disk_and_stays_on_record(platform: Platform, third: str) -> None:
    """What served when is still told, and it cannot come back."""
    (promoted,) = [
        one for one in platform.events("tides", "promoted") if (one.version, one.environment) == (3, PRODUCTION)
    ]
    folder = platform.settings.home / str(platform.orrery.model("tides").versions[3].facts["artifact"])
    assert folder.is_dir()
    in_use = platform.api("DELETE", f"{TIDES}/versions/1", params=WHY)
    assert in_use.status_code == 403 and "in use" in in_use.json()["error"]["what"]
    assert platform.api("DELETE", f"{TIDES}/versions/3").status_code == 422
    order(platform, "versions/3/retire", environment="staging", **WHY)
    assert platform.api("DELETE", f"{TIDES}/versions/3", params=WHY).status_code == 201
    wait(lambda: not folder.exists() and platform.events("tides", "purged"), 20)
    record = platform.api("GET", f"{TIDES}/versions/3").json()
    assert record["deleted"]["by"] == "mara" and record["facts"]["metrics"]
    at = format_instant(promoted.occurred_at)
    lanes = platform.api("GET", f"{TIDES}/at", params={"at": at}).json()["environments"]
    assert [lane["champion"] for lane in lanes if lane["environment"] == PRODUCTION] == [3]
    told = cli(platform.settings.home, "timeline", "tides", "--at", at)
    assert told.returncode == 0 and "3" in told.stdout
    assert "deleted" in order(platform, "rollback", 403, to=3, **WHY)["what"]
    assert platform.served() == 1


@pytest.mark.slow
def test_the_champion_loads_with_stock_mlflow_and_predicts_what_the_server_does(
    platform: Platform, tmp_path: Path
) -> None:
    """By its alias, in a process that knows nothing but the address."""
    rows = [
        {"gauge": "a", "at": "2026-01-20T00:00:00", "moon": 0.5, "wind": -1.0},
        {"gauge": "b", "at": "2026-01-20T00:00:00", "moon": -2.0, "wind": 0.25},
    ]
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("ORRERY_", "MLFLOW_", "_MLFLOW"))}
    environment |= {"MLFLOW_TRACKING_URI": f"{platform.settings.control_url}/mlflow"}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
    command = [sys.executable, "-W", "ignore", "-c", LOAD, json.dumps(rows)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = httpx.post(f"{platform.settings.serving_url}/models/tides/predict", json=rows).json()
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(answer["prediction"], abs=1e-12)
