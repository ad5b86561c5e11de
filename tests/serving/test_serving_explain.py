"""Requests for explanations wait in line beside the predictions: few at once, refused in time, and counted apart."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from orrery.pipeline import explain as pipeline
from orrery.serving import explaining
from serving.conftest import Served


@pytest.fixture(scope="module")
def explained(served: Any) -> Iterator[Served]:
    found: Served = served()
    slots = [found.slot(1, model="m", plan={"value": 0.75})]
    slots += [found.slot(1, model=name, plan={"value": 0.75, "ponder": 0.2}) for name in ("slow", "other", "third")]
    slots.append(found.slot(1, model="bare", plan={"lacks": "shap"}))
    try:
        found.start()
        found.assign(*slots)
        yield found
    finally:
        found.close()


def ask(served: Served, model: str, content: Any, path: str = "predict?explain=true", **headers: str) -> httpx.Response:
    return served.http.post(f"/models/{model}/{path}", json=content, headers=headers, timeout=60)


def processes(served: Served) -> list[psutil.Process]:
    """Return the processes that explain."""
    return [process for process in served.models() if "--nice" in process.cmdline()]


def test_an_answer_says_why_where_it_is_asked_and_in_every_form_of_json(explained: Served) -> None:
    row, why = {"age": 40}, {"base": 0.625, "contributions": {"age": 0.125}}
    about = {"method": "by hand", "scale": "probability", "asked": 0, "cost": 0.5}
    found = ask(explained, "m", row).json()
    assert (found["probability"], found["explanation"], found["explained"]) == (0.75, why, about)
    plain = ask(explained, "m", row, "predict").json()
    assert "explanation" not in plain and "explained" not in plain
    assert ask(explained, "m", row, "predict?explain=false").json().keys() == plain.keys()
    assert ask(explained, "m", [row, row]).json()["explanation"] == [why, why]

    content = {"dataframe_records": [row]}
    mlflow = ask(explained, "m", content, "invocations?explain=true").json()
    assert mlflow == {"predictions": [0.75], "explanation": [why], "explained": about}

    inputs = {"inputs": [{"name": "age", "datatype": "INT64", "shape": [2], "data": [40, 41]}]}
    asked = {**inputs, "parameters": {"explain": True}, "outputs": [{"name": "probability"}]}
    answer = explained.http.post("/v2/models/m/infer", json=asked).json()
    assert answer["outputs"][1:] == [
        {"name": "contributions", "datatype": "FP64", "shape": [2, 1], "data": [0.125] * 2, "parameters": about},
        {"name": "base", "datatype": "FP64", "shape": [1], "data": [0.625]},
        {"name": "columns", "datatype": "BYTES", "shape": [1], "data": ["age"]},
    ]
    assert (
        explained.http.post("/v2/models/m/infer?explain=true", json=inputs).json()["outputs"][2:]
        == answer["outputs"][1:]
    )
    odd = explained.http.post("/v2/models/m/infer", json={**asked, "parameters": {"explain": "please"}})
    assert odd.status_code == 400 and "explain is 'please'" in odd.json()["error"]


def test_what_it_cost_is_counted_apart_from_predictions(explained: Served) -> None:
    def counted() -> tuple[int, int]:
        explains = explained.count("request_explain_seconds_count", model_name="m")
        return explains, explained.count("orrery_request_duration_seconds_count", model="m")

    explains, requests = counted()
    assert ask(explained, "m", {"age": 40}).status_code == 200
    assert ask(explained, "m", {"age": 40}, "predict").status_code == 200
    assert counted() == (explains + 1, requests + 1)


def test_what_is_asked_wrongly_is_refused_before_anything_is_predicted(explained: Served) -> None:
    before = len(explained.journal())
    assert explaining.MAX_ROWS == pipeline.MAX_ROWS
    many = ask(explained, "m", [{"age": 40}] * (explaining.MAX_ROWS + 1))
    assert many.status_code == 413 and "201 rows cannot be explained" in many.json()["error"]
    arrow = ask(explained, "m", {"age": 40}, accept="application/vnd.apache.arrow.stream")
    assert arrow.status_code == 400 and "Accept JSON" in arrow.json()["error"]
    odd = ask(explained, "m", {"age": 40}, "predict?explain=yes")
    assert odd.status_code == 400 and "'yes'" in odd.json()["error"]
    assert len(explained.journal()) == before


def test_a_missing_package_is_told_in_every_protocol_and_predictions_go_on(explained: Served) -> None:
    missing = ask(explained, "bare", {"age": 40})
    assert missing.status_code == 501 and "shap is not installed" in missing.json()["error"]
    mlflow = ask(explained, "bare", {"dataframe_records": [{"age": 40}]}, "invocations?explain=true")
    assert (mlflow.status_code, mlflow.json()["error_code"]) == (501, "NOT_IMPLEMENTED")
    assert ask(explained, "bare", {"age": 40}, "predict").status_code == 200


def test_a_process_that_died_is_started_again_and_one_that_dies_each_time_is_told(explained: Served) -> None:
    assert ask(explained, "m", {"age": 40}).status_code == 200
    for process in processes(explained):
        process.kill()
    assert ask(explained, "m", {"age": 40}).status_code == 200
    explained.slot(1, model="other", plan={"fails": "its folder is gone"})  # what a process that starts now finds
    refused = ask(explained, "other", {"age": 40})
    assert refused.status_code == 503 and "failed (its folder is gone)" in refused.json()["error"]
    assert ask(explained, "other", {"age": 40}, "predict").status_code == 200
    explained.slot(1, model="other", plan={"value": 0.75, "ponder": 0.2})
    assert ask(explained, "other", {"age": 40}).status_code == 200


def test_a_burst_waits_in_line_and_predictions_go_past_it(explained: Served) -> None:
    """Forty at once: who finds no place is told so, and not one prediction is refused or waits until they are done."""
    done: list[int] = []

    def explain(_: int) -> httpx.Response:
        found = ask(explained, "slow", {"age": 40})
        done.append(found.status_code)
        return found

    with ThreadPoolExecutor(40) as threads:
        asking = [threads.submit(explain, number) for number in range(40)]
        explained.until(lambda: 429 in done, 60)
        assert ask(explained, "slow", {"age": 40}, "predict").status_code == 200
        assert done.count(200) < explaining.MAX_WAITING, "the prediction waited for explanations"
        found = [one.result() for one in asking]
    assert set(done) == {200, 429} and done.count(200) >= explaining.MAX_WAITING
    refused = next(one for one in found if one.status_code == 429)
    assert refused.headers["retry-after"] == "1" and "16 requests for explanations" in refused.json()["error"]
    assert ask(explained, "slow", {"age": 40}).status_code == 200  # their places are free again


def test_only_so_many_versions_explain_at_once(explained: Served) -> None:
    for name in ("m", "slow", "other", "m"):  # one after the other, each finds a place
        assert ask(explained, name, {"age": 40}).status_code == 200
    explained.until(lambda: len(processes(explained)) == explaining.PROCESSES)
    with ThreadPoolExecutor(12) as threads:
        asking = [threads.submit(ask, explained, name, {"age": 40}) for name in ("slow", "other", "third") * 4]
        found = [one.result() for one in asking]
    assert {one.status_code for one in found} == {200, 429}
    assert all("versions explain already" in one.json()["error"] for one in found if one.status_code == 429)
    explained.until(lambda: len(processes(explained)) == explaining.PROCESSES)


def test_a_repair_is_in_the_sum_where_the_scale_allows_it() -> None:
    found = {"base": [0.5], "contributions": [[[1.0, -2.0]]], "scale": "log-odds", "columns": ["a", "b"]}
    again = explaining._repaired(found, 2.0, 0.25)
    assert (again["base"], again["contributions"]) == ([1.25], [[[2.0, -4.0]]])


def test_the_document_tells_of_it(explained: Served) -> None:
    told = explained.http.get("/openapi.json").json()["paths"]["/models/{model}/predict"]["post"]
    assert "explain" in [one["name"] for one in told["parameters"]] and "501" in told["responses"]
