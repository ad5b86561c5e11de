"""Whatever is sent, a caller's mistake is told as one, and is never a failure of the server's."""

from __future__ import annotations

import gzip
import io
import json
import struct
from typing import Any

import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from orrery.errors import NotUnderstood, OrreryError
from orrery.serving import invocations, open_inference, plain, tensors
from orrery.serving.assignment import Slot
from orrery.serving.openapi import document
from orrery.serving.plain import ARROW
from orrery.serving.refusals import code_of
from orrery.serving.requests import Answer, Given, Read

SLOT = Slot(model="m", environment="production", version=7, role="champion", artifact="", python="")
KNOWN = {"a": "Float64", "b": "Int64", "c": "String", "d": "Boolean"}

cells = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    cells, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
names = st.sampled_from([*KNOWN, "e", "_id", ""])
row = st.dictionaries(names, cells | anything, max_size=5)
rows = st.lists(row, max_size=4)
columns = st.dictionaries(names, st.lists(cells, max_size=4) | anything, max_size=5)
split = st.fixed_dictionaries(
    {"columns": st.lists(names, max_size=4) | anything, "data": st.lists(st.lists(cells, max_size=4)) | anything},
    optional={"index": anything, "more": anything},
)
mlflow = st.one_of(
    anything,
    st.dictionaries(st.sampled_from([*invocations.FORMS, "params"]), rows | columns | split | anything, max_size=2),
    st.fixed_dictionaries({"dataframe_split": split}),
    st.fixed_dictionaries({"inputs": columns | rows}),
)
parameters = st.none() | st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "classification"]), cells, max_size=2
)
tensor = st.fixed_dictionaries(
    {
        "name": names,
        "shape": st.lists(st.integers(-2, 5) | st.integers(), max_size=3),
        "datatype": st.sampled_from([*tensors.DATATYPES, "FP128"]),
    },
    optional={"data": st.lists(cells | st.lists(cells, max_size=3), max_size=5), "parameters": parameters},
)
wanted = st.fixed_dictionaries({"name": st.just("prediction")}, optional={"parameters": parameters})
infer = st.fixed_dictionaries(
    {"inputs": st.lists(tensor, max_size=3) | anything},
    optional={
        "id": st.text(max_size=4) | anything,
        "outputs": st.lists(wanted),
        "parameters": parameters,
    },
)


def survive(read: Read, body: bytes, **headers: str) -> Answer | None:
    """Read a body; what is wrong with it must be told, and what is right must be answered."""
    fields = {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        asked = read(Given(body, fields), SLOT, KNOWN)
    except OrreryError as error:
        assert 400 <= code_of(error).http < 500, repr(error)
        assert error.what
        return None
    request = asked.request
    assert request.rows > 0 and all(len(values) == request.rows for values in request.columns.values())
    answer = Answer(request, SLOT, [[0.25]] * request.rows, None, [], [])
    written, content = asked.write(answer)
    assert content and dict(written)["content-type"]
    return answer


@given(anything | rows | row)
def test_the_plain_form(body: Any) -> None:
    survive(plain.read, json.dumps(body).encode())


@given(mlflow)
@example({"instances": [], "inputs": 3})
@example({"inputs": {"a": []}})
def test_the_forms_of_mlflow(body: Any) -> None:
    survive(invocations.read, json.dumps(body).encode(), content_type="application/json")


@given(infer, st.binary(max_size=40))
def test_the_open_inference_protocol(body: Any, raw: bytes) -> None:
    head = json.dumps(body).encode()
    survive(open_inference.read, head)
    survive(open_inference.read, head + raw, inference_header_content_length=str(len(head)))


@given(st.binary(max_size=60), st.text(max_size=5))
def test_bytes_that_are_nothing(body: bytes, length: str) -> None:
    survive(plain.read, body)
    survive(plain.read, body, content_type=ARROW)
    survive(invocations.read, body, content_type="text/csv")
    survive(invocations.read, body, content_type="application/json")
    survive(open_inference.read, body, inference_header_content_length=length)


@given(st.text('abcd,"\n\r 0123456789.eE-+naNinf\0', max_size=80))
def test_csv(text: str) -> None:
    survive(invocations.read, text.encode(), content_type="text/csv")


@settings(max_examples=400)
@given(st.sampled_from([*tensors.DATATYPES]), st.binary(max_size=48), st.lists(st.integers(-1, 6), max_size=3))
def test_the_bytes_of_tensors(datatype: str, raw: bytes, shape: list[int]) -> None:
    size = len(raw)
    tensor = {"name": "a", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    survive(open_inference.read, head + raw, inference_header_content_length=str(len(head)))


def arrow(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table)
    return sink.getvalue()


TABLE = pa.table(
    {
        "a": [0.5, None, 2.5],
        "b": pa.array([1, 2, None], pa.int32()),
        "c": pa.array(["x", None, "z"]).dictionary_encode(),
        "d": [True, False, None],
        "e": pa.array([0, 1, None], pa.timestamp("ns", "UTC")),
    }
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6), st.integers(0, 10_000))
def test_a_damaged_arrow_table(changes: list[tuple[int, int]], end: int) -> None:
    body = bytearray(arrow(TABLE))
    for at, value in changes:
        body[at % len(body)] = value
    survive(plain.read, bytes(body), content_type=ARROW)
    survive(plain.read, bytes(body[: end % len(body)]), content_type=ARROW)


def test_an_arrow_table_is_read_whole() -> None:
    answer = survive(plain.read, arrow(TABLE), content_type=ARROW)
    assert answer is not None
    assert answer.request.columns == {
        "a": [0.5, None, 2.5],
        "b": [1, 2, None],
        "c": ["x", None, "z"],
        "d": [True, False, None],
        "e": ["1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00+00:00", None],
    }


def test_an_arrow_table_says_what_is_wrong_with_it() -> None:
    late = pa.table({"e": pa.array([1 << 60, None], pa.timestamp("s", "UTC"))})
    nowhere = pa.table({"e": pa.array([0, None], pa.timestamp("us", "Nowhere/Else"))})
    for body, says in (
        (arrow(pa.table({"a name": [1.0]})).replace(b"a name", b"a\xffname"), "is no Arrow IPC stream"),
        (arrow(late), "Column e holds a date that cannot be written"),
        (arrow(nowhere), "Column e holds a date that cannot be written"),
    ):
        with pytest.raises(NotUnderstood, match=says):
            plain.read(Given(body, {"content-type": ARROW, "content-length": "1"}), SLOT, KNOWN)


def test_arrow_tables_that_would_unpack_to_more_than_they_seem() -> None:
    long = pa.array(["x" * 1_000_000])
    wide = pa.DictionaryArray.from_arrays(pa.array([0] * 90_000, pa.int32()), long)
    zeros = pa.table({"a": pa.array([0.0] * 50_000)})
    many = pa.table({"a": pa.nulls(10_000_000)})
    nested = pa.table({"a": [[1], [2]]})
    for table, options, says in (
        (pa.table({"c": wide}), {}, "too much text"),
        (zeros, {"compression": "zstd"}, "is compressed"),
        (pa.table({"c": pa.array(["x", "y"]).dictionary_encode()}), {"compression": "lz4"}, "is compressed"),
        (many, {}, "10000000 rows"),
        (nested, {}, "no place in a request"),
    ):
        body = arrow(table, **options)
        with pytest.raises(OrreryError, match=says):
            plain.read(Given(body, {"content-type": ARROW, "content-length": "1"}), SLOT, KNOWN)


def test_every_datatype_goes_and_comes() -> None:
    for name, datatype in tensors.DATATYPES.items():
        if name not in ("BYTES", "BF16", "BOOL"):
            values = [0, 1, 2] if datatype.high else [0.5, -1.0, 2.0]
            assert tensors.unpacked("a", name, [3], tensors.packed(name, values)) == values
    assert tensors.unpacked("a", "BOOL", [2], b"\0\1") == [False, True]
    assert tensors.unpacked("a", "BF16", [1, 2], struct.pack("<2f", 1.5, -2.0)[2:4] + b"\0\xc0") == [1.5, -2.0]
    assert tensors.unpacked("a", "BYTES", [1], struct.pack("<I", 2) + "é".encode()) == ["é"]


arrow_tables = st.dictionaries(
    st.sampled_from(["echo", "age", "city", ""]), st.lists(st.none() | st.floats(), min_size=2, max_size=2), max_size=3
).map(lambda columns: arrow(pa.table(columns)))
schemathesis.openapi.media_type(ARROW, arrow_tables | st.binary(max_size=40))
schemathesis.openapi.media_type("text/csv", st.text('echo,age\n\r" 0.5-', max_size=40).map(str.encode))
schema = schemathesis.openapi.from_dict(document("1"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


@schema.parametrize()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@seed(7)
def test_what_the_document_says_is_so(case: schemathesis.Case, steady: Any) -> None:
    if "model" in case.path_parameters:
        case.path_parameters["model"] = "m"
    if "version" in case.path_parameters:
        case.path_parameters["version"] = "7"
    answer = case.call(base_url=f"http://127.0.0.1:{steady.port}")
    case.validate_response(answer, checks=CHECKS)


def test_the_document_is_served_and_names_every_way_to_predict(steady: Any) -> None:
    served = steady.http.get("/openapi.json").json()
    assert served["openapi"].startswith("3.1")
    assert {path.rsplit("/")[-1] for path, item in served["paths"].items() if "post" in item} == {
        "infer",
        "invocations",
        "predict",
    }


def test_gzip_of_noise_is_told(steady: Any) -> None:
    noise = gzip.compress(b"{}")[:12] + bytes(range(40))
    answer = steady.http.post("/models/m/predict", content=noise, headers={"content-encoding": "gzip"})
    assert (answer.status_code, "not gzip" in answer.json()["error"]) == (400, True)
