"""A compiled version answers in the server itself, as its own Python would; and only what it was proven for."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import polars as pl
import pytest

from orrery.pipeline.predictor import Predictor
from orrery.pipeline.verdict import GRAPH, VERDICT, Verdict, read_verdict
from orrery.serving.models import AT_ONCE, load_compiled

BOOSTED = """
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    def model(rows, y):
        cities = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        columns = make_column_transformer((cities, ["city"]), remainder="passthrough")
        return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=20, random_state=1)).fit(rows, y)
"""
LINEAR = """
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def model(rows, y):
        return make_pipeline(make_column_transformer((StandardScaler(), ["a", "b"])), LogisticRegression()).fit(rows, y)
"""


def data() -> pl.DataFrame:
    random = np.random.default_rng(5)
    a, b = random.normal(size=400), random.normal(size=400)
    city = random.choice(["Paris", "Rome", "Zürich"], 400)
    y = a + (city == "Rome") + random.normal(size=400) > 0.3
    return pl.DataFrame({"a": a, "b": b, "n": random.integers(0, 9, 400), "city": city, "y": y})


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from training.conftest import Trainer

    trainer = Trainer(tmp_path_factory.mktemp("versions"))
    other = BOOSTED.replace("max_iter=20", "max_iter=5")
    return {
        name: trainer.version(text, data())
        for name, text in (("boosted", BOOSTED), ("linear", LINEAR), ("other", other))
    }


@pytest.fixture
def copied(versions: dict[str, Path], tmp_path: Path) -> Path:
    """A version of its own, to be damaged."""
    return Path(shutil.copytree(versions["boosted"], tmp_path / "copied"))


@pytest.fixture(scope="module")
def boosted(versions: dict[str, Path], served_folder: Any) -> Iterator[Any]:
    yield from served_folder(lambda _: versions["boosted"])


def serve(server: Any, artifact: Path, **changes: Any) -> Any:
    server.start("real")
    server.assign({**server.slot(1), "artifact": str(artifact), "timeout": 30.0, **changes})
    server.until(lambda: server.http.get("/v2/health/ready").status_code == 200, 60)
    return server


def log_of(server: Any) -> str:
    return str((server.folder / "log").read_text())


ORDINARY: list[Any] = [
    {"a": 0.5, "b": -1.25, "n": 3, "city": "Rome"},
    {"a": 1, "b": 0, "n": 3.0, "city": "never seen"},
    {"a": None, "b": 0.1, "n": 3, "city": None},
    {"city": "Zürich", "other": 1.5},
    {"a": 1e300, "b": -1e300, "n": 8, "city": ""},
    [{"a": number / 7, "b": 1.0, "n": number % 9, "city": "Rome"} for number in range(2 * AT_ONCE)],
]
BEYOND: dict[str, Any] = {"a": 0.5, "b": 1.0, "n": 2**60, "city": "Rome"}
"""No float64 holds such a number, so nothing was proven for it."""


def own(version: Path, body: Any) -> list[float]:
    """What the version's Python says, without its graph."""
    rows = body if isinstance(body, list) else [body]
    names = dict.fromkeys(name for row in rows for name in row)
    predictor = Predictor.load(version)
    fitted = predictor.columns.of_values({name: [row.get(name) for row in rows] for name in names}, len(rows))
    return [float(row[0]) for row in predictor.predict_rows(fitted)]


def differs(version: Path, body: Any, answer: httpx.Response) -> float:
    """How far an answer is from what the version's Python says."""
    assert answer.status_code == 200, answer.text
    return float(np.abs(np.array(own(version, body)) - answer.json()["probability"]).max())


@pytest.mark.parametrize("body", ORDINARY)
def test_it_answers_as_its_own_python_and_needs_no_process(boosted: Any, versions: dict[str, Path], body: Any) -> None:
    assert differs(versions["boosted"], body, boosted.predict(body)) < 1e-6
    assert differs(versions["other"], body, boosted.predict(body)) > 1e-4
    assert boosted.models() == []


def test_requests_that_come_while_it_is_loaded_need_no_process(server: Any, versions: dict[str, Path]) -> None:
    server.start("real")
    server.order({**server.slot(1), "artifact": str(versions["boosted"]), "timeout": 30.0})  # and not waited for
    answers: list[int] = []
    while answers.count(200) < 20:
        assert len(answers) < 50_000
        answers.append(server.predict(ORDINARY[0]).status_code)
    assert server.models() == []


def test_nobody_waits_longer_for_it_to_be_loaded_than_for_an_answer(server: Any, versions: dict[str, Path]) -> None:
    server.start("real")
    server.order({**server.slot(1), "artifact": str(versions["boosted"]), "timeout": 0.001})
    said: list[httpx.Response] = []
    while not said or said[-1].status_code != 200:
        assert len(said) < 50_000
        said.append(server.predict(ORDINARY[0]))
    refused = [one for one in said if one.status_code == 503]
    assert refused and any("still being loaded" in one.text for one in refused)


def test_the_runtime_is_loaded_only_for_a_compiled_version(boosted: Any, server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    assert server.predict().status_code == 200
    for one, loaded in ((server, False), (boosted, True)):
        assert ("onnxruntime" in Path(f"/proc/{one.process.pid}/maps").read_text()) is loaded


def test_who_was_not_sent_and_who_is_not_known_is_told(boosted: Any, versions: dict[str, Path]) -> None:
    told = boosted.predict(ORDINARY[3]).json()["parameters"]
    assert told == {"missing": ["a", "b", "n"], "extra": ["other"]}
    described = boosted.http.get("/v2/models/m").json()["inputs"]
    types = {column.name: column.type for column in (read_verdict(versions["boosted"]) or Verdict()).columns}
    assert [one["name"] for one in described] == list(types)
    assert types == {name: str(kind) for name, kind in Predictor.load(versions["boosted"]).columns.accepted.items()}


def test_what_was_not_proven_its_own_python_answers(server: Any, versions: dict[str, Path]) -> None:
    serve(server, versions["boosted"])
    assert server.predict(ORDINARY[0]).status_code == 200 and server.models() == []
    assert differs(versions["boosted"], BEYOND, server.predict(BEYOND)) == 0.0
    assert len(server.models()) == 1
    refused = server.predict({"a": "much"})
    assert refused.status_code == 400 and "a" in refused.json()["error"] and "much" in refused.json()["error"]
    many = [*ORDINARY[5], BEYOND]
    assert differs(versions["boosted"], many, server.predict(many)) == 0.0
    assert len({row["_id"] for row in server.journal()}) == len(server.journal()) == 2 + len(many)


def test_requests_that_arrive_together_get_each_its_own_answer(server: Any, versions: dict[str, Path]) -> None:
    serve(server, versions["boosted"])
    rows = [
        {"a": number / 10, "b": 0.5, "n": 2**60 if number % 9 == 4 else number, "city": "Rome"} for number in range(60)
    ]
    rows[7] = {"a": [1]}
    rows[8] = {"a": "much"}

    async def all_of_them() -> list[httpx.Response]:
        url = f"http://127.0.0.1:{server.port}/models/m/predict"
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=60)) as http:
            return await asyncio.gather(*(http.post(url, json=row) for row in rows))

    answers = asyncio.run(all_of_them())
    assert [number for number, answer in enumerate(answers) if answer.status_code != 200] == [7, 8]
    good = [number for number in range(60) if number not in (7, 8)]
    said = [answers[number].json()["probability"] for number in good]
    assert np.abs(np.array(own(versions["boosted"], [rows[number] for number in good])) - said).max() < 1e-6
    written = {row["_id"]: row["_output"][0] for row in server.journal()}
    assert written == {f"{answers[number].json()['id']}#0": said[at] for at, number in enumerate(good)}


def test_a_challenger_rides_along_compiled(server: Any, versions: dict[str, Path]) -> None:
    server.start("real")
    slots = [server.slot(1), server.slot(2, "shadow")]
    for slot, name in zip(slots, ("boosted", "linear"), strict=True):
        slot["artifact"] = str(versions[name])
    server.assign(*slots)
    body = {"a": 0.5, "b": -1.25, "n": 3, "city": "Rome"}
    assert server.predict(body, Prefer="wait-shadow").status_code == 200
    said = {row["_role"]: row["_output"][0] for row in server.journal()}
    assert said["champion"] == pytest.approx(own(versions["boosted"], body)[0], abs=1e-6)
    assert said["shadow"] == pytest.approx(own(versions["linear"], body)[0], abs=1e-6)
    assert server.models() == []


def test_a_version_whose_python_is_gone_answers_what_was_proven(server: Any, copied: Path) -> None:
    (copied / "model.pkl").unlink()
    serve(server, copied, timeout=5.0)
    assert server.predict(ORDINARY[0]).status_code == 200
    assert server.predict(BEYOND).status_code == 503
    assert server.predict(ORDINARY[0]).status_code == 200


@pytest.mark.parametrize("change", [{"why": "it differs"}, {"whole": False}, None], ids=["failed", "not whole", "none"])
def test_without_a_proof_its_own_python_answers(
    server: Any, copied: Path, versions: dict[str, Path], change: dict[str, Any] | None
) -> None:
    if change is None:
        (copied / VERDICT).unlink()
    else:
        rewrite(copied, **change)
    put(copied / GRAPH, (versions["other"] / GRAPH).read_bytes())  # what would be noticed if it were asked
    serve(server, copied)
    assert differs(copied, ORDINARY[0], server.predict(ORDINARY[0])) == 0.0
    assert len(server.models()) == 1
    assert ("is not the one that was proven" in log_of(server)) is (change == {"whole": False})


def cut(artifact: Path, versions: dict[str, Path]) -> str:
    put(artifact / GRAPH, (artifact / GRAPH).read_bytes()[:1000])
    return "is not the one that was proven"


def flipped(artifact: Path, versions: dict[str, Path]) -> str:
    content = bytearray((artifact / GRAPH).read_bytes())
    content[len(content) // 2] ^= 1
    put(artifact / GRAPH, bytes(content))
    return "is not the one that was proven"


def gone(artifact: Path, versions: dict[str, Path]) -> str:
    (artifact / GRAPH).unlink()
    return f"has no {GRAPH}"


def unreadable(artifact: Path, versions: dict[str, Path]) -> str:
    put(artifact / VERDICT, b"{")
    return "cannot be read"


def no_graph(artifact: Path, versions: dict[str, Path]) -> str:
    swapped(artifact, b"no graph")
    return "INVALID_PROTOBUF"


def says_something_else(artifact: Path, versions: dict[str, Path]) -> str:
    swapped(artifact, (versions["other"] / GRAPH).read_bytes())
    return "from what it said when it was proven"


def not_to_be_tried(artifact: Path, versions: dict[str, Path]) -> str:
    rewrite(artifact, sample=None)
    return "No rows were kept"


@pytest.mark.parametrize("damage", [cut, flipped, gone, unreadable, no_graph, says_something_else, not_to_be_tried])
def test_a_damaged_compiled_form_is_noticed(copied: Path, versions: dict[str, Path], damage: Any) -> None:
    loaded, _ = load_compiled(str(copied))
    assert loaded is not None and loaded.whole
    said = damage(copied, versions)
    with pytest.raises(Exception, match=said):
        load_compiled(str(copied))


@pytest.mark.parametrize("damage", [cut, says_something_else])
def test_a_damaged_compiled_form_is_not_used_and_harms_nobody(
    server: Any, copied: Path, versions: dict[str, Path], damage: Any
) -> None:
    said = damage(copied, versions)
    serve(server, copied)
    assert differs(versions["boosted"], ORDINARY[0], server.predict(ORDINARY[0])) == 0.0
    assert len(server.models()) == 1
    assert "the compiled form of Version 1 of m is not used" in log_of(server) and said in log_of(server)


def put(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def rewrite(artifact: Path, **changes: Any) -> None:
    verdict = read_verdict(artifact)
    assert verdict is not None and verdict.whole and not verdict.why and verdict.sample is not None
    put(artifact / VERDICT, msgspec.json.encode(msgspec.structs.replace(verdict, **changes)))


def swapped(artifact: Path, graph: bytes) -> None:
    put(artifact / GRAPH, graph)
    rewrite(artifact, digest=hashlib.sha256(graph).hexdigest())
