"""gRPC: the same answers and refusals as over HTTP, by the protocol's own messages."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2

from orrery.serving import rpc

MESSAGES = rpc.messages(rpc.DESCRIPTORS.read_bytes())
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Caller:
    """Calls the methods of one server."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def call(self, method: str, metadata: dict[str, str] | None = None, **fields: Any) -> Any:
        """Call, and return the answer; as ``trailing``, its metadata is kept."""
        ask = self.channel.unary_unary(f"/{rpc.NAME}/{method}")
        data = MESSAGES[f"{method}Request"](**fields).SerializeToString()
        reply, call = ask.with_call(data, metadata=tuple((metadata or {}).items()), timeout=20)
        self.trailing = dict(call.trailing_metadata())
        return MESSAGES[f"{method}Response"].FromString(reply)

    def refused(self, method: str, metadata: dict[str, str] | None = None, **fields: Any) -> tuple[str, str]:
        """Call, and return code and message of the error."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, metadata, **fields)
        return caught.value.code().name, caught.value.details()


@pytest.fixture(scope="module")
def caller(steady: Any) -> Iterator[Caller]:
    found = Caller(steady.grpc_port)
    yield found
    found.channel.close()


def tensor(name: str, datatype: str, field: str, values: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(values)], "contents": {field: values}}


AGE = tensor("age", "FP64", "fp64_contents", [40, 41.5])
ECHO = tensor("echo", "FP32", "fp32_contents", [0.25, 0.75])


def test_the_descriptors_are_those_of_the_proto(tmp_path: Path) -> None:
    source = rpc.DESCRIPTORS.with_suffix(".proto")
    fresh = tmp_path / "fresh.binpb"
    argv = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(source.parent)]
    subprocess.run([*argv, f"--descriptor_set_out={fresh}", str(source)], check=True)
    read = descriptor_pb2.FileDescriptorSet.FromString
    assert read(fresh.read_bytes()) == read(rpc.DESCRIPTORS.read_bytes()), "run `make proto`"


def test_who_asks_is_in_the_log(caller: Caller, steady: Any) -> None:
    caller.call("ModelInfer", {"x-caller": "app-7"}, model_name="m", id="named", inputs=[AGE, ECHO])
    caller.call("ModelInfer", model_name="m", id="nameless", inputs=[AGE, ECHO])
    rows = {row["_id"]: row.get("_caller") for row in steady.journal()}
    assert (rows["named#0"], rows["named#1"], rows["nameless#0"]) == ("app-7", "app-7", None)
    assert (
        caller.refused("ModelInfer", {"x-caller": "x" * 201}, model_name="m", inputs=[AGE, ECHO])[0]
        == "INVALID_ARGUMENT"
    )


def test_metadata_and_health(caller: Caller) -> None:
    assert caller.call("ServerLive").live
    assert caller.call("ServerReady").ready
    assert caller.call("ServerMetadata").name == "orrery"
    assert caller.call("ModelReady", name="m").ready
    assert caller.call("ModelReady", name="m", version="7").ready
    described = caller.call("ModelMetadata", name="m")
    assert list(described.versions) == ["7"]
    assert [(each.name, each.datatype) for each in described.inputs] == [("age", "INT64"), ("city", "BYTES")]
    assert caller.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20) == b"\x08\x01"


def test_typed_tensors_are_answered_as_typed_tensors(caller: Caller, steady: Any) -> None:
    city = tensor("city", "BYTES", "bytes_contents", [b"Rome", b"Paris"])
    answer = caller.call("ModelInfer", {"traceparent": TRACE}, model_name="m", id="g1", inputs=[AGE, ECHO, city])
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "7", "g1")
    probability, prediction = answer.outputs
    assert (probability.name, probability.datatype, list(probability.shape)) == ("probability", "FP64", [2])
    assert list(probability.contents.fp64_contents) == [0.25, 0.75]
    assert list(prediction.contents.int64_contents) == [0, 1]
    assert not answer.raw_output_contents
    assert caller.trailing["traceparent"][:36] == TRACE[:36]
    last = steady.journal()[-1]
    assert (last["_id"], last["age"], last["city"]) == ("g1#1", 41.5, "Paris")


def test_bytes_are_answered_as_bytes_and_only_with_what_is_wanted(caller: Caller) -> None:
    raw = {"name": "echo", "datatype": "FP64", "shape": [2, 1]}
    answer = caller.call(
        "ModelInfer",
        model_name="m",
        inputs=[raw],
        raw_input_contents=[struct.pack("<2d", 0.25, 0.75)],
        outputs=[{"name": "prediction"}],
    )
    assert [output.name for output in answer.outputs] == ["prediction"]
    assert struct.unpack("<2q", answer.raw_output_contents[0]) == (0, 1)
    assert json.loads(answer.parameters["missing"].string_param) == ["age"]


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("ModelInfer", {"model_name": "other"}, "NOT_FOUND", "'other' is not served in production."),
    ("ModelInfer", {"model_name": "m", "model_version": "6"}, "NOT_FOUND", "Version 7 of m answers"),
    ("ModelReady", {"name": "m", "version": "6"}, "NOT_FOUND", "Version 7 of m answers"),
    ("ModelInfer", {"model_name": "m"}, "INVALID_ARGUMENT", "no rows"),
    (
        "ModelInfer",
        {"model_name": "m", "inputs": [AGE], "outputs": [{"name": "odds"}]},
        "INVALID_ARGUMENT",
        "no output odds",
    ),
    (
        "ModelInfer",
        {"model_name": "m", "inputs": [{**AGE, "datatype": "FP128"}]},
        "INVALID_ARGUMENT",
        "unknown datatype 'FP128'",
    ),
    (
        "ModelInfer",
        {"model_name": "m", "inputs": [{**AGE, "datatype": "FP32"}]},
        "INVALID_ARGUMENT",
        "Column age is FP32 and has fp64_contents",
    ),
    (
        "ModelInfer",
        {"model_name": "m", "inputs": [{**AGE, "datatype": "FP16"}]},
        "INVALID_ARGUMENT",
        "raw_input_contents",
    ),
    (
        "ModelInfer",
        {"model_name": "m", "inputs": [tensor("age", "UINT8", "uint_contents", [1, 256])]},
        "INVALID_ARGUMENT",
        "Column age of row 1 holds 256, which is not UINT8",
    ),
    (
        "ModelInfer",
        {"model_name": "m", "inputs": [tensor("city", "BYTES", "bytes_contents", [b"a", b"\xff"])]},
        "INVALID_ARGUMENT",
        "Column city of row 1 is not UTF-8",
    ),
    (
        "ModelInfer",
        {"model_name": "m", "inputs": [AGE, ECHO], "raw_input_contents": [b""]},
        "INVALID_ARGUMENT",
        "2 inputs and the bytes of 1",
    ),
    (
        "ModelInfer",
        {
            "model_name": "m",
            "inputs": [{"name": "age", "datatype": "FP64", "shape": [2]}],
            "raw_input_contents": [b"x"],
        },
        "INVALID_ARGUMENT",
        "Column age has the shape [2] of FP64, and 1 bytes",
    ),
    ("ModelInfer", {"model_name": "m", "id": "x" * 300, "inputs": [AGE]}, "INVALID_ARGUMENT", "at most 200 characters"),
    (
        "ModelInfer",
        {"model_name": "m", "inputs": [tensor("do", "BYTES", "bytes_contents", [b"fail"])]},
        "INTERNAL",
        "Version 7 of m failed: ZeroDivisionError",
    ),
    (
        "ModelInfer",
        {"model_name": "m", "inputs": [tensor("do", "BYTES", "bytes_contents", [b"odd"])]},
        "INVALID_ARGUMENT",
        "cannot use column do of row 0: not a day",
    ),
]


@pytest.mark.parametrize(("method", "fields", "code", "says"), REFUSED)
def test_refusals_name_code_column_and_row(
    caller: Caller, method: str, fields: dict[str, Any], code: str, says: str
) -> None:
    found, told = caller.refused(method, **fields)
    assert (found, says in told) == (code, True), told
    assert caller.call("ModelInfer", model_name="m", inputs=[AGE, ECHO]).outputs


def test_a_message_that_is_none_and_one_that_is_too_large(caller: Caller) -> None:
    ask = caller.channel.unary_unary(f"/{rpc.NAME}/ModelInfer")
    with pytest.raises(grpc.RpcError) as broken:
        ask(b"\xff\xff\xff", timeout=20)
    assert broken.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as large:
        ask(bytes(33 << 20), timeout=20)
    assert large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_environment_is_metadata(caller: Caller) -> None:
    elsewhere = {"orrery-environment": "staging"}
    assert caller.refused("ModelInfer", elsewhere, model_name="m", inputs=[AGE]) == (
        "NOT_FOUND",
        "'m' is not served in staging.",
    )
    assert caller.call("ModelInfer", {"orrery-environment": "production"}, model_name="m", inputs=[AGE]).outputs


def test_a_taken_port_is_told_and_without_a_port_there_is_no_grpc(server: Any, steady: Any) -> None:
    server.start()
    assert "grpc" not in Path(f"/proc/{server.process.pid}/maps").read_text()
    server.stop()
    with pytest.raises(AssertionError, match="the server has ended"):
        server.start(grpc_port=steady.grpc_port)
    assert f"Port {steady.grpc_port} is taken." in (server.folder / "log").read_text()


def test_a_call_that_runs_is_finished_when_the_server_stops(server: Any) -> None:
    server.start(grpc_port=server.grpc_port)
    server.assign(server.slot(1, plan={"sleep": 1.0}))
    caller = Caller(server.grpc_port)
    data = MESSAGES["ModelInferRequest"](model_name="m", inputs=[AGE]).SerializeToString()
    running = caller.channel.unary_unary(f"/{rpc.NAME}/ModelInfer").future(data, timeout=20)
    time.sleep(0.3)  # so that it has arrived
    assert server.stop() == 0
    assert MESSAGES["ModelInferResponse"].FromString(running.result()).model_version == "1"
    caller.channel.close()
