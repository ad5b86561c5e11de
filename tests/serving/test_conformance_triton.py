"""Public clients of the Open Inference Protocol: tritonclient over HTTP and gRPC, as JSON and as bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

AGES = np.array([[40.0], [41.5], [np.nan]])
ECHOES = np.array([0.25, 0.75, 0.5])
CITIES = np.array([b"Rome", "Tōkyō".encode(), b""], dtype=np.object_)

DATATYPES = [
    ("BOOL", np.bool_, [True, False], [True, False]),
    *[(f"INT{bits}", getattr(np, f"int{bits}"), [-1, 5], [-1, 5]) for bits in (8, 16, 32, 64)],
    *[(f"UINT{bits}", getattr(np, f"uint{bits}"), [1, 5], [1, 5]) for bits in (8, 16, 32, 64)],
    *[(f"FP{bits}", getattr(np, f"float{bits}"), [0.5, np.nan], [0.5, None]) for bits in (16, 32, 64)],
]
"""Name, numpy's type, what is sent and what the log has."""


@pytest.fixture(scope="module", params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, steady: Any) -> Any:
    """Return the client's module, and a client."""
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]
    port = {"http": steady.port, "grpc": steady.grpc_port}[request.param]
    client = module.InferenceServerClient(f"127.0.0.1:{port}")
    yield module, client
    client.close()


def inputs(module: Any, **options: Any) -> list[Any]:
    """Return three columns as the client wants them."""
    found = []
    for name, datatype, values in (("age", "FP64", AGES), ("echo", "FP64", ECHOES), ("city", "BYTES", CITIES)):
        found.append(module.InferInput(name, list(values.shape), datatype))
        found[-1].set_data_from_numpy(values, **options)
    return found


def check(answer: Any) -> None:
    assert answer.as_numpy("probability").tolist() == [0.25, 0.75, 0.5]
    assert answer.as_numpy("prediction").tolist() == [0, 1, 1]
    assert answer.as_numpy("prediction").dtype == np.int64


def test_health_and_metadata(triton: Any) -> None:
    module, client = triton
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("m") and client.is_model_ready("m", "7")
    as_json = {"as_json": True} if module is tritonclient.grpc else {}
    assert client.get_server_metadata(**as_json)["name"] == "orrery"
    described = client.get_model_metadata("m", **as_json)
    assert described["versions"] == ["7"]
    assert [(each["name"], each["datatype"]) for each in described["inputs"]] == [("age", "INT64"), ("city", "BYTES")]
    assert [(each["name"], each["datatype"]) for each in described["outputs"]] == [
        ("probability", "FP64"),
        ("prediction", "INT64"),
    ]


def test_a_server_that_is_not_ready_and_a_model_that_is_not_there(triton: Any, server: Any) -> None:
    module, client = triton
    with pytest.raises(InferenceServerException, match="'other' is not served"):
        client.get_model_metadata("other")
    server.start(grpc_port=server.grpc_port)
    port = server.port if module is tritonclient.http else server.grpc_port
    unassigned = module.InferenceServerClient(f"127.0.0.1:{port}")
    assert unassigned.is_server_live() and not unassigned.is_server_ready()
    unassigned.close()


def test_bytes_in_and_out(triton: Any, steady: Any) -> None:
    module, client = triton
    answer = client.infer("m", inputs(module), request_id=f"{module.__name__}-bytes")
    check(answer)
    last = steady.journal()[-3:]
    assert [row["age"] for row in last] == [40.0, 41.5, None]
    assert [row["city"] for row in last] == ["Rome", "Tōkyō", ""]
    assert last[0]["_id"] == f"{module.__name__}-bytes#0"


def test_wanted_outputs_and_versions(triton: Any) -> None:
    module, client = triton
    wanted = [module.InferRequestedOutput("prediction")]
    answer = client.infer("m", inputs(module), model_version="7", outputs=wanted)
    assert answer.as_numpy("prediction").tolist() == [0, 1, 1]
    assert answer.as_numpy("probability") is None
    with pytest.raises(InferenceServerException, match="no output odds"):
        client.infer("m", inputs(module), outputs=[module.InferRequestedOutput("odds")])
    with pytest.raises(InferenceServerException, match="Version 7 of m answers"):
        client.infer("m", inputs(module), model_version="8")


def test_http_as_json_in_and_bytes_out_and_the_other_way_round(steady: Any) -> None:
    module = tritonclient.http
    client = module.InferenceServerClient(f"127.0.0.1:{steady.port}")
    as_json = inputs(module, binary_data=False)
    as_json[0].set_data_from_numpy(np.nan_to_num(AGES), binary_data=False)
    for sent in (as_json, inputs(module), [as_json[0], *inputs(module)[1:]]):
        for raw in (True, False):
            names = ("probability", "prediction")
            check(client.infer("m", sent, outputs=[module.InferRequestedOutput(n, binary_data=raw) for n in names]))
        one_each = [
            module.InferRequestedOutput("probability", binary_data=True),
            module.InferRequestedOutput("prediction", binary_data=False),
        ]
        check(client.infer("m", sent, outputs=one_each))
    client.close()


@pytest.mark.parametrize("way", ["gzip", "deflate"])
def test_packed_bodies(triton: Any, way: str) -> None:
    module, client = triton
    if module is tritonclient.grpc:
        check(client.infer("m", inputs(module), compression_algorithm=way))
    else:
        packed = client.infer(
            "m", inputs(module), request_compression_algorithm=way, response_compression_algorithm=way
        )
        check(packed)


@pytest.mark.parametrize(("name", "kind", "sent", "logged"), DATATYPES, ids=[each[0] for each in DATATYPES])
def test_every_datatype(triton: Any, steady: Any, name: str, kind: Any, sent: Any, logged: Any) -> None:
    module, client = triton
    column = module.InferInput("x", [2], name)
    column.set_data_from_numpy(np.array(sent, dtype=kind))
    assert client.infer("m", [column]).as_numpy("probability").shape == (2,)
    assert [row["x"] for row in steady.journal()[-2:]] == logged


def test_one_matrix_holds_the_numeric_columns(triton: Any, server: Any) -> None:
    module, _ = triton
    server.start(grpc_port=server.grpc_port)
    kinds = {"a": "Float64", "name": "String", "echo": "Float64", "c": "Int64"}
    server.assign(server.slot(1, columns=kinds))
    port = server.port if module is tritonclient.http else server.grpc_port
    client = module.InferenceServerClient(f"127.0.0.1:{port}")
    matrix = module.InferInput("anything", [2, 3], "FP32")
    matrix.set_data_from_numpy(np.array([[1, 0.25, 3], [4, 0.75, 6]], dtype=np.float32))
    assert client.infer("m", [matrix]).as_numpy("probability").tolist() == [0.25, 0.75]
    assert [(row["a"], row["c"]) for row in server.journal()] == [(1.0, 3.0), (4.0, 6.0)]
    narrow = module.InferInput("anything", [1, 2], "FP32")
    narrow.set_data_from_numpy(np.zeros((1, 2), dtype=np.float32))
    with pytest.raises(InferenceServerException, match="has 2 columns, and the model has 3 that are numbers"):
        client.infer("m", [narrow])
    client.close()


def test_many_at_once_over_http(steady: Any) -> None:
    async def ask() -> list[Any]:
        module = tritonclient.http
        async with tritonclient.http.aio.InferenceServerClient(f"127.0.0.1:{steady.port}") as client:
            return await asyncio.gather(*(client.infer("m", inputs(module)) for _ in range(20)))

    for answer in asyncio.run(ask()):
        check(answer)


def test_many_at_once_over_grpc(steady: Any) -> None:
    async def ask() -> list[Any]:
        module = tritonclient.grpc
        async with tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{steady.grpc_port}") as client:
            return await asyncio.gather(*(client.infer("m", inputs(module)) for _ in range(20)))

    for answer in asyncio.run(ask()):
        check(answer)
