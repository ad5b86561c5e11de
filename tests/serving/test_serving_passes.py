"""Where access is required the inference server answers who shows a token of its scope, and shows what is theirs."""

from __future__ import annotations

import time
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2

from orrery.access.homekey import home_key
from orrery.access.keys import digest
from orrery.serving.rpc import DESCRIPTORS
from orrery.settings import ACCESS_FILE
from serving.test_serving_grpc import Caller, tensor

WHOLE, MINE, OLD = (f"orrery_t{number:012x}_{'A' * 43}" for number in (1, 2, 3))
AGE = tensor("age", "FP64", "fp64_contents", [40])
NONE = {"v2", "v2/models", "v2/models/m", "v2/models/m/ready", "metrics", "version", "openapi.json"}


def shown(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def ordered(server: Any, *passes: dict[str, Any]) -> None:
    for model in ("m", "n"):
        (server.folder / f"artifact-{model}-7").mkdir(exist_ok=True)
    seq = server.order(server.slot(7), server.slot(7, model="n"))
    server.control.assignment = {**server.control.assignment, "passes": list(passes)}
    server.until(lambda: any(one["applied"] == seq for one in server.control.reports), 60)


def asked(server: Any, path: str, token: str = "") -> httpx.Response:
    row = {"age": 40} if path.endswith("predict") else None
    return server.http.request("POST" if row else "GET", path, json=row, headers=shown(token) if token else {})


def test_who_shows_what_gets_what(server: Any) -> None:
    (server.home / ACCESS_FILE).touch()
    server.start(grpc_port=server.grpc_port)
    soon = time.time() + 3600
    whole = {"hash": digest(WHOLE), "until": soon, "account": "mara"}
    mine = {"hash": digest(MINE), "until": soon, "models": ["n"]}
    ordered(server, whole, mine, {"hash": digest(OLD), "until": time.time() - 1})

    for path in (*sorted(NONE), "models/m/predict", "nowhere"):
        for token in ("", OLD, WHOLE[:-1] + "B", digest(WHOLE)):
            answer = asked(server, f"/{path}", token)
            assert answer.status_code == 401 and "Bearer" in answer.headers["www-authenticate"], (path, token)
    assert server.http.post("/models/m/predict", json={"age": 1}, auth=("mara", WHOLE)).status_code == 401
    assert asked(server, "/v2/health/ready").status_code == 200

    assert asked(server, "/models/m/predict", WHOLE).status_code == 200
    assert asked(server, "/models/m/predict", home_key(server.home)).status_code == 200  # who owns the files
    assert asked(server, "/models/m/predict", home_key(server.home)[:-1]).status_code == 401
    assert asked(server, "/v2/models", WHOLE).json() == {"models": ["m", "n"]}
    assert asked(server, "/models/n/predict", MINE).status_code == 200
    assert asked(server, "/v2/models", MINE).json() == {"models": ["n"]}
    assert '"m"' in asked(server, "/metrics", WHOLE).text
    assert asked(server, "/metrics", MINE).status_code == 404  # it names the models of all
    absent = asked(server, "/models/x/predict", WHOLE).json()["error"].replace("'x'", "'m'")
    for path in ("/models/m/predict", "/env/production/models/m/predict"):
        answer = asked(server, path, MINE)
        assert (answer.status_code, answer.json()["error"]) == (404, absent)  # as if it were not there

    rpc = Caller(server.grpc_port)
    said = {**shown(WHOLE), "x-caller": "somebody else", "x-request-id": "named"}
    assert rpc.call("ModelInfer", said, model_name="m", inputs=[AGE]).model_version == "7"
    assert server.http.post("/models/m/predict", json={"age": 40}, headers={**said, "x-request-id": "too"}).is_success
    callers = {row["_id"]: row.get("_caller") for row in server.journal()}
    assert callers["named#0"] == callers["too#0"] == "mara", "whose token it is, whatever the header says"
    assert rpc.refused("ModelInfer", model_name="m", inputs=[AGE])[0] == "UNAUTHENTICATED"
    assert rpc.refused("ModelInfer", shown(OLD), model_name="m", inputs=[AGE])[0] == "UNAUTHENTICATED"
    assert rpc.refused("ModelInfer", shown(MINE), model_name="m", inputs=[AGE])[0] == "NOT_FOUND"
    assert rpc.refused("ModelMetadata", name="m")[0] == "UNAUTHENTICATED"
    assert rpc.call("ServerLive").live
    rpc.channel.close()

    server.control.assignment = {**server.control.assignment, "passes": [mine]}  # revoked
    server.until(lambda: asked(server, "/models/m/predict", WHOLE).status_code == 401, 20)
    server.control.close()  # it goes on without the control plane, and as closed as before
    assert asked(server, "/models/n/predict", MINE).status_code == 200
    server.kill()
    server.start(grpc_port=server.grpc_port)
    server.until(lambda: asked(server, "/models/n/predict", MINE).status_code == 200, 20)
    assert asked(server, "/models/n/predict", WHOLE).status_code == 401


def test_where_access_is_open_nobody_needs_one(steady: Any) -> None:
    assert asked(steady, "/models/m/predict").status_code == 200
    with pytest.raises(grpc.RpcError):  # what is refused there is something else
        Caller(steady.grpc_port).call("ModelInfer", model_name="x", inputs=[AGE])


def test_denied_requests_are_told_and_counted_not_sent_one_by_one(server: Any) -> None:
    """Each is answered as before; the control plane hears of account, model and number."""
    (server.home / ACCESS_FILE).touch()
    server.start()
    mine = {"hash": digest(MINE), "until": time.time() + 3600, "models": ["n"], "account": "mara"}
    ordered(server, mine)
    for _ in range(20):
        assert asked(server, "/models/m/predict", MINE).status_code == 404
        assert asked(server, "/models/n/predict", OLD).status_code == 401
    assert asked(server, "/models/invented/predict", MINE).status_code == 404  # is not there: nothing was denied
    assert asked(server, "/models/n/predict").status_code == 401  # showed nothing: is asked to
    assert asked(server, "/models/n/predict", MINE).status_code == 200

    def told() -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for report in list(server.control.reports):
            for one in report.get("denied", ()):
                key = (one["account"], one["model"])
                found[key] = found.get(key, 0) + one["times"]
        return found

    server.until(lambda: sum(told().values()) >= 40, 30)
    assert told() == {("mara", "m"): 20, ("", ""): 20}
    assert sum(bool(report.get("denied")) for report in list(server.control.reports)) < 10


NAMELESS = {"ServerLive", "ServerReady", "ServerMetadata"}
"""Methods that name no model, and tell of none; a new one must be looked at before it stands here."""


def test_every_method_over_grpc_shows_each_team_its_own(server: Any) -> None:
    """The methods are those of the protocol's file, without which the server answers none: a new one must be ruled."""
    pool = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file[0]
    methods = {one.name: one.input_type.rpartition(".")[2] for service in pool.service for one in service.method}
    asks = {one.name: {field.name for field in one.field} for one in pool.message_type}
    assert methods.keys() >= NAMELESS | {"ModelReady", "ModelMetadata", "ModelInfer"}
    (server.home / ACCESS_FILE).touch()
    server.start(grpc_port=server.grpc_port)
    mine = {"hash": digest(MINE), "until": time.time() + 3600, "models": ["n"]}
    ordered(server, {"hash": digest(WHOLE), "until": time.time() + 3600, "account": "mara"}, mine)
    rpc, answered = Caller(server.grpc_port), set()
    for name, message in methods.items():
        fields = asks[message] & {"name", "model_name"}
        if not fields:
            assert name in NAMELESS, f"{name} names no model: what does it tell of those of others?"
            said = str(rpc.call(name, shown(MINE)))
            assert "'m'" not in said and '"m"' not in said, name
            answered.add(name)
            continue
        (field,) = fields
        more = {"inputs": [AGE]} if name == "ModelInfer" else {}
        theirs = rpc.refused(name, shown(MINE), **{field: "m"}, **more)
        absent = rpc.refused(name, shown(MINE), **{field: "x"}, **more)
        assert theirs[0] == "NOT_FOUND" and theirs[1] == absent[1].replace("'x'", "'m'"), name
        assert rpc.refused(name, **{field: "n"}, **more)[0] == "UNAUTHENTICATED", name
        rpc.call(name, shown(MINE), **{field: "n"}, **more)  # what is theirs is answered
        rpc.call(name, shown(WHOLE), **{field: "m"}, **more)
        answered.add(name)
    rpc.channel.close()
    assert answered == methods.keys()
