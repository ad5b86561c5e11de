"""What a principal sees of the stores, on both databases; MLflow's server is in ``web/test_web_mlflow_teams.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from orrery.access.roles import Grant, Principal
from orrery.settings import Settings


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def stores(home: Settings, request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """The stores of runs and of registered models."""
    from orrery.registry.database import _engines, opened, store_uri
    from orrery.registry.sight import asking
    from orrery.registry.store import TimelineRegistryStore, TimelineTrackingStore

    url = request.getfixturevalue("postgresql")() if request.param == "postgresql" else home.database
    uri = store_uri(url)
    yield TimelineTrackingStore(uri, "mlflow-artifacts:/"), TimelineRegistryStore(uri)
    asking.set(None)
    _engines.pop(opened(uri)[0]).dispose()


def as_(project: str, role: str = "scientist") -> Principal:
    return Principal(project, (Grant(role, project),))


def test_each_sees_and_changes_their_own(stores: tuple[Any, Any]) -> None:
    from mlflow.entities import Metric, TraceInfo, TraceLocation, TraceState, ViewType
    from mlflow.exceptions import MlflowException

    from orrery.registry.sight import asking

    runs, models = stores
    made = {}
    for project in ("tides", "waves"):
        asking.set(as_(project))
        experiment = runs.create_experiment(f"{project}/one")
        run = runs.create_run(experiment, "x", 1, [], "run").info.run_id
        runs.log_batch(run, [Metric("loss", 0.5, 1, 0)], [], [])
        where = TraceLocation.from_experiment_id(experiment)
        for number in range(2):
            name = f"tr-{project}-{number}"
            runs.start_trace(
                TraceInfo(trace_id=name, trace_location=where, request_time=1, state=TraceState.OK, tags={"a": "b"})
            )
        models.create_registered_model(project)
        models.create_model_version(project, f"mlflow-artifacts:/{experiment}/{run}/artifacts/model", run)
        made[project] = (experiment, run)

    asking.set(as_("tides"))
    experiment, run = made["waves"]
    assert [one.name for one in runs.search_experiments(ViewType.ALL)] == ["tides/one"]
    assert (
        [one.name for one in models.search_registered_models()]
        == ["tides"]
        == [one.name for one in models.search_model_versions()]
    )
    assert runs.search_runs([experiment], "", ViewType.ALL) == [] == runs.search_traces([experiment])[0]
    assert runs.get_metric_history(run, "loss") == []
    for call in (
        lambda: runs.get_run(run),
        lambda: runs.get_trace_info("tr-waves-0"),
        lambda: models.get_registered_model("waves"),
        lambda: runs.log_batch(run, [Metric("loss", 0.1, 1, 1)], [], []),
        lambda: runs.create_run(experiment, "x", 1, [], "run"),
        lambda: runs.rename_experiment(made["tides"][0], "waves/two"),
        lambda: models.create_model_version("tides", f"mlflow-artifacts:/{experiment}/{run}/artifacts/model", run),
        lambda: models.create_registered_model("waves.two"),
        lambda: models.set_registered_model_alias("waves", "best", 1),
    ):
        with pytest.raises(MlflowException):
            call()
    assert runs.delete_traces(experiment, trace_ids=["tr-waves-0"]) == 0
    assert runs.delete_traces(made["tides"][0], trace_ids=["tr-tides-0"]) == 1
    assert runs.get_run(made["tides"][1]).data.metrics == {"loss": 0.5}

    asking.set(as_("waves", "viewer"))
    assert runs.get_run(run).data.metrics == {"loss": 0.5}
    with pytest.raises(MlflowException, match="may not track"):
        runs.log_batch(run, [Metric("loss", 0.1, 1, 1)], [], [])

    asking.set(Principal("mara", (Grant("viewer"),)))
    assert len(runs.search_experiments(ViewType.ALL)) == 3 and len(models.search_registered_models()) == 2
    asking.set(None)
    assert models.get_model_version("tides", 1).source != models.get_model_version("waves", 1).source
