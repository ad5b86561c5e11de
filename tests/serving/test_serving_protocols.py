"""What goes in and out: the Open Inference Protocol, MLflow's forms, the plain form, and everything malformed."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pytest

from orrery.errors import NotUnderstood
from orrery.serving import invocations, open_inference
from orrery.serving.assignment import Slot
from orrery.serving.plain import ARROW
from orrery.serving.requests import Given, Read, Request, request

SLOT = Slot(model="m", environment="production", version=7, role="champion", artifact="", python="")
INFER = "/v2/models/m/infer"
BODY: dict[str, Any] = {
    "id": "r1",
    "inputs": [
        {"name": "age", "shape": [2], "datatype": "FP64", "data": [40, 41.5]},
        {"name": "echo", "shape": [2, 1], "datatype": "FP64", "data": [[0.25], [0.75]]},
        {"name": "city", "shape": [2], "datatype": "BYTES", "data": ["Rome", None]},
    ],
}


def understood(read: Read, body: bytes, **headers: str) -> Request:
    """Return what a reader makes of a body."""
    fields = {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    return read(Given(body, fields), SLOT, {"n": "Int64", "x": "Float64", "b": "Boolean", "t": "String"}).request


def changed(**changes: Any) -> dict[str, Any]:
    """Return the body with another first tensor."""
    return {**BODY, "inputs": [{**BODY["inputs"][0], **changes}, *BODY["inputs"][1:]]}


def test_open_inference_answers_with_probability_and_prediction(steady: Any) -> None:
    answer = steady.http.post(INFER, json=BODY)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "r1"
    assert answer.json() == {
        "model_name": "m",
        "model_version": "7",
        "id": "r1",
        "outputs": [
            {"name": "probability", "datatype": "FP64", "shape": [2], "data": [0.25, 0.75]},
            {"name": "prediction", "datatype": "INT64", "shape": [2], "data": [0, 1]},
        ],
    }


def test_open_inference_gives_the_outputs_that_are_wanted(steady: Any) -> None:
    answer = steady.http.post(INFER, json={**BODY, "outputs": [{"name": "prediction"}]})
    assert [output["name"] for output in answer.json()["outputs"]] == ["prediction"]
    refused = steady.http.post(INFER, json={**BODY, "outputs": [{"name": "odds"}]})
    assert (refused.status_code, "no output odds" in refused.json()["error"]) == (400, True)


def test_open_inference_metadata_and_health(steady: Any) -> None:
    get = steady.http.get
    assert get("/v2").json()["name"] == "orrery"
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    assert get("/v2/models").json() == {"models": ["m"]}
    assert get("/v2/models/m/ready").json() == {"name": "m", "ready": True}
    assert get("/v2/models/m/versions/7/ready").status_code == 200
    described = get("/v2/models/m").json()
    assert described["versions"] == ["7"]
    assert described["inputs"] == [
        {"name": "age", "datatype": "INT64", "shape": [-1]},
        {"name": "city", "datatype": "BYTES", "shape": [-1]},
    ]
    assert get("/v2/models/m/versions/6/ready").status_code == 404
    assert get("/v2/models/other/ready").status_code == 404


def test_an_environment_is_a_prefix(steady: Any) -> None:
    assert steady.http.post("/env/production" + INFER, json=BODY).status_code == 200
    absent = steady.http.post("/env/staging" + INFER, json=BODY)
    assert (absent.status_code, absent.json()["error"]) == (404, "'m' is not served in staging.")
    assert steady.http.post("/v2/models/m/versions/7/infer", json=BODY).status_code == 200
    assert steady.http.post("/v2/models/m/versions/6/infer", json=BODY).status_code == 404


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": {"columns": ["age", "echo"], "data": [[40, 0.25], [41, 0.75]]}},
        {"dataframe_records": [{"age": 40, "echo": 0.25}, {"age": 41, "echo": 0.75}]},
        {"instances": [{"age": 40, "echo": 0.25}, {"age": 41, "echo": 0.75}]},
        {"inputs": {"age": [40, 41], "echo": [0.25, 0.75]}},
    ],
    ids=lambda content: next(iter(content)),
)
def test_invocations_in_every_form(steady: Any, content: dict[str, Any]) -> None:
    for path in ("/invocations", "/models/m/invocations", "/env/production/invocations"):
        answer = steady.http.post(path, json=content)
        assert (answer.status_code, answer.json()) == (200, {"predictions": [0.25, 0.75]})


def test_invocations_reads_csv(steady: Any) -> None:
    text = "age,echo,city,note\n40,0.25,Rome,\n41,0.75,Paris,x\n"
    answer = steady.http.post("/invocations", content=text, headers={"content-type": "text/csv; charset=utf-8"})
    assert answer.json() == {"predictions": [0.25, 0.75]}
    last = steady.journal()[-1]
    assert (last["age"], last["echo"], last["city"], last["note"]) == (41, 0.75, "Paris", "x")


def test_csv_and_json_give_the_same_columns() -> None:
    records = [{"n": 1, "x": 1.5, "b": True, "t": "a"}, {"n": 2, "x": None, "b": False, "t": "b"}]
    text = b"n,x,b,t\n1,1.5,true,a\n2,,false,b\n"
    as_json = understood(invocations.read, json.dumps({"dataframe_records": records}).encode())
    assert understood(invocations.read, text, content_type="text/csv").columns == as_json.columns


def test_the_plain_form_takes_one_row_or_many(steady: Any) -> None:
    one = steady.predict({"age": 40, "echo": 0.75}, x_request_id="mine")
    assert one.json() == {"id": "mine", "model": "m", "version": 7, "probability": 0.75, "prediction": 1}
    many = steady.predict([{"age": 40, "echo": 0.75}, {"age": 4, "echo": 0.25}]).json()
    assert (many["probability"], many["prediction"]) == ([0.75, 0.25], [1, 0])


def test_a_table_of_arrow_goes_and_comes(steady: Any) -> None:
    table = pa.table({"age": [40.0, None], "echo": [0.25, 0.75], "city": ["Rome", "Oslo"]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    kind = {"content-type": ARROW, "x-request-id": "batch"}
    answer = steady.http.post("/models/m/predict", content=sink.getvalue(), headers=kind)
    assert (answer.status_code, answer.headers["content-type"]) == (200, ARROW)
    found = pa.ipc.open_stream(answer.content).read_all()
    assert found.to_pydict() == {"probability": [0.25, 0.75], "prediction": [0, 1], "broken": [[], ["city"]]}
    assert found.schema.metadata[b"id"] == b"batch"
    assert [row["city"] for row in steady.journal()[-2:]] == ["Rome", "Oslo"]
    as_json = steady.http.post(
        "/models/m/predict", content=sink.getvalue(), headers={**kind, "accept": "application/json"}
    )
    assert as_json.json()["probability"] == [0.25, 0.75]
    from_json = steady.http.post("/models/m/predict", json={"echo": 0.5}, headers={"accept": ARROW})
    assert pa.ipc.open_stream(from_json.content).read_all()["prediction"].to_pylist() == [1]


def test_what_was_not_sent_is_said(steady: Any) -> None:
    assert steady.predict({"echo": 0.1}).json()["parameters"] == {"missing": ["age"]}


NESTED = "[" * 100_000 + "]" * 100_000
MALFORMED = [
    (INFER, b"", 400, "cannot be read"),
    (INFER, b"{", 400, "cannot be read"),
    (INFER, b"\xff\xfe", 400, "cannot be read"),
    (INFER, b"[]", 400, "cannot be read"),
    (INFER, b'{"inputs": []}', 400, "no rows"),
    (INFER, NESTED.encode(), 400, "cannot be read"),
    (INFER, ('{"inputs": ' + NESTED + "}").encode(), 400, "cannot be read"),
    (INFER, changed(datatype="FP128"), 400, "unknown datatype 'FP128'"),
    (INFER, changed(datatype="INT64"), 400, "Column age of row 1 holds 41.5, which is not INT64"),
    (INFER, changed(datatype="BOOL"), 400, "Column age of row 0 holds 40, which is not BOOL"),
    (INFER, changed(data=[40, "41"]), 400, "Column age of row 1 holds '41', which is not FP64"),
    (INFER, changed(data=[40, True]), 400, "Column age of row 1 holds True, which is not FP64"),
    (INFER, changed(data=[[40], [41, 42]]), 400, "Column age of row 1 is not one value"),
    (INFER, changed(shape=[3]), 400, "Column age has the shape [3] and 2 values"),
    (INFER, changed(shape=[2, 2]), 400, "Column age has the shape [2, 2]"),
    (INFER, changed(shape=[1], data=[1]), 400, "Column echo has 2 rows and column age has 1"),
    (INFER, changed(shape=["2"]), 400, "$.inputs[0].shape[0]"),
    (INFER, changed(name="echo"), 400, "Column echo is there twice"),
    (INFER, changed(name="_id"), 400, "cannot be called '_id'"),
    (INFER, changed(datatype="INT64", data=[40, 1 << 80]), 400, "more than 64 bits"),
    (INFER, b'{"inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [NaN]}]}', 400, "cannot be read"),
    (INFER, {**BODY, "id": "x" * 1000}, 400, "at most 200 characters"),
    (INFER, {**BODY, "id": "a\nb"}, 400, "ASCII text"),
    ("/models/m/predict", b"NaN", 400, "not JSON"),
    ("/models/m/predict", b"3", 400, "not an object of columns"),
    ("/models/m/predict", b"{}", 400, "no rows"),
    ("/models/m/predict", [{"age": 1}, 2], 400, "Row 1 is not an object"),
    ("/models/m/predict", {"age": [1]}, 400, "Column age of row 0 holds a list"),
    ("/models/m/predict", {"age": {"x": 1}}, 400, "Column age of row 0 holds an object"),
    ("/models/m/predict", NESTED.encode(), 400, "nested too deeply"),
    ("/models/m/predict", {"do": "odd"}, 400, "cannot use column do of row 0: not a day"),
    ("/models/m/predict", {"do": "fail"}, 500, "Version 7 of m failed: ZeroDivisionError"),
    ("/models/m/predict", {"do": "short"}, 500, "returned 0 predictions for 1 rows"),
    ("/invocations", {"rows": []}, 400, "no form that is read here"),
    ("/invocations", {"inputs": {}, "instances": []}, 400, "no form that is read here"),
    ("/invocations", {"instances": [[1, 2]]}, 400, "Row 0 is not an object"),
    ("/invocations", {"instances": 3}, 400, "not a list of rows"),
    ("/invocations", {"inputs": {"a": [1, 2], "b": [1]}}, 400, "Column b has 1 rows"),
    ("/invocations", {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3]]}}, 400, "Row 1 does not have 2"),
    ("/invocations", {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, 400, "twice"),
    (
        "/invocations",
        {"dataframe_split": {"columns": ["a"], "data": [[1], [1 << 63]]}},
        400,
        "Column a of row 1 holds a w",
    ),
    (
        "/invocations",
        {"dataframe_split": {"columns": ["a"], "data": [[1], [[2]]]}},
        400,
        "Column a of row 1 holds a list",
    ),
    ("/invocations", {"dataframe_split": {"columns": ["_id"], "data": [[1]]}}, 400, "cannot be called '_id'"),
    ("/invocations", {"dataframe_split": {"columns": ["a"], "data": []}}, 400, "no rows"),
    ("/models/m/predict", {"age": 1 << 63}, 400, "more than 64 bits"),
    ("/models/m/predict", {"age": 1, "_id": 2}, 400, "cannot be called '_id'"),
    ("/models/other/predict", {"age": 1}, 404, "'other' is not served"),
    ("/v2/models/m/explain", {"age": 1}, 405, "not understood"),
    ("/nothing/predict", {"age": 1}, 404, "There is nothing at"),
    ("/v2/models/m/nonsense/infer", {"age": 1}, 404, "There is nothing at"),
]


@pytest.mark.parametrize(("path", "content", "status", "says"), MALFORMED)
def test_malformed_requests_are_told_why(steady: Any, path: str, content: Any, status: int, says: str) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content)
    answer = steady.http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    told = answer.json()
    assert says in (told["message"] if path.endswith("/invocations") else told["error"])
    assert steady.predict().status_code == 200


def test_other_content_types_and_methods(steady: Any) -> None:
    parquet = steady.http.post("/invocations", content=b"PAR1", headers={"content-type": "application/parquet"})
    assert (parquet.status_code, "not read here" in parquet.json()["message"]) == (415, True)
    assert steady.http.get(INFER).status_code == 405
    assert steady.http.delete("/v2/models/m").status_code == 405


def test_a_number_that_is_too_big_for_the_model_is_named(steady: Any) -> None:
    answer = steady.http.post("/invocations", content=f"age\n1\n{1 << 80}\n", headers={"content-type": "text/csv"})
    assert (answer.status_code, "Column age of row 1 holds a whole number" in answer.json()["message"]) == (400, True)


def test_a_huge_body_is_refused_with_and_without_its_length(steady: Any) -> None:
    block = b" " * (1 << 20)
    told = steady.http.post("/models/m/predict", content=block * 33)
    streamed = steady.http.post("/models/m/predict", content=(block for _ in range(33)))
    assert [told.status_code, streamed.status_code] == [413, 413]
    assert "more than 33554432 bytes" in told.json()["error"]
    assert steady.predict().status_code == 200


def test_a_chunked_body_is_read(steady: Any) -> None:
    answer = steady.http.post("/models/m/predict", content=iter([b'{"age": 40, ', b'"echo": 0.5}']))
    assert answer.json()["probability"] == 0.5


def test_the_reader_takes_what_the_protocol_describes() -> None:
    found = understood(open_inference.read, json.dumps(BODY).encode())
    assert (found.rows, found.id) == (2, "r1")
    assert set(open_inference.InferRequest.__struct_fields__) == {"inputs", "id", "outputs", "parameters"}
    with pytest.raises(NotUnderstood, match="no rows"):
        request({"age": []})
