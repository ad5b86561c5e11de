"""MLflow's own scoring server and ours answer the same corpus of good and odd requests about one version.

What differs on purpose stands in the corpus with its reason: ``kinder`` where only ours answers, ``stricter`` where
only MLflow's does, ``status`` where both refuse with another status.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import polars as pl
import pytest

PROJECT = """
import numpy as np
import polars as pl

class Model:
    def predict_proba(self, given):
        score = (
            given["a"].fill_null(0.5) * 0.3
            + given["b"].fill_null(3).cast(pl.Float64) * 0.01
            + (given["city"] == "Rome").fill_null(False).cast(pl.Float64) * 0.2
            + given["flag"].fill_null(False).cast(pl.Float64) * 0.1
            + given["hour"].fill_null(12).cast(pl.Float64) * 0.02
        ).to_numpy()
        high = 1 / (1 + np.exp(-np.clip(score, -50, 50)))
        return np.column_stack([1 - high, high])

def features(rows):
    return rows.select("a", "b", "city", "flag", hour=rows["at"].dt.hour())

def model(features, y):
    return Model()
"""
MLFLOW = """
import sys
import mlflow.pyfunc, uvicorn
from mlflow.pyfunc.scoring_server import init
uvicorn.run(init(mlflow.pyfunc.load_model(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""


def data() -> pl.DataFrame:
    """Return rows with every kind of column: required, with nulls, entity and time."""
    return pl.DataFrame(
        {
            "who": [f"p{row}" for row in range(80)],
            "when": [datetime(2020, 1, 1) + timedelta(days=row) for row in range(80)],
            "a": [row / 8 for row in range(80)],
            "b": [row % 7 for row in range(80)],
            "city": ["Rome", "Paris"] * 40,
            "flag": [row % 3 == 0 for row in range(80)],
            "at": [None, *(datetime(2020, 1, 1) + timedelta(hours=row) for row in range(79))],
            "n": [None, 1.5] * 40,
            "y": [row % 2 for row in range(80)],
        }
    )


def trained(folder: Path) -> Path:
    """Train a version as the platform does, and return its folder."""
    (folder / "checkout").mkdir()
    (folder / "checkout" / "pipeline.py").write_text(PROJECT)
    data().write_parquet(folder / "rows.parquet")
    model = {"name": "m", "task": "binary", "target": "y", "entity": "who", "time": "when"}
    job = {
        "checkout": str(folder / "checkout"),
        "spec": {"model": model, "data": {"rows": "rows"}},
        "datasets": {"rows": {"path": str(folder / "rows.parquet"), "key": "rows@v1"}},
        "out": str(folder / "out"),
        "cache": str(folder / "cache"),
        "seed": 1,
    }
    (folder / "job.json").write_text(json.dumps(job))
    argv = [sys.executable, "-m", "orrery.training.runner", str(folder / "job.json")]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, (folder / "out" / "result.json").read_text() + done.stderr
    return folder / "out" / "artifact"


@pytest.fixture(scope="module")
def ours(served_folder: Any) -> Iterator[Any]:
    yield from served_folder(trained)


@pytest.fixture(scope="module")
def theirs(ours: Any) -> Iterator[httpx.Client]:
    artifact, port = ours.folder / "out" / "artifact", ours.grpc_port
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", MLFLOW, str(artifact), str(port)])
    once = httpx.Limits(max_keepalive_connections=0)  # it drops connections when it fails
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=once) as client:

        def up() -> bool:
            assert process.poll() is None
            try:
                return client.get("/ping").status_code == 200
            except httpx.TransportError:
                return False

        ours.until(up, 120)
        yield client
    process.kill()
    process.wait()


class Case(NamedTuple):
    """One request, and how the two differ on it, if they do."""

    name: str
    body: Any
    kind: str = "application/json"
    differs: str = ""
    why: str = ""


ROW: dict[str, Any] = {
    "who": "p1",
    "when": "2020-01-01T05:00:00",
    "a": 0.5,
    "b": 3,
    "city": "Rome",
    "flag": True,
    "at": "2020-01-01T07:00:00",
    "n": 1.5,
}
NEEDED = {name: value for name, value in ROW.items() if name not in ("who", "when", "n")}


DATES = ("when", "at")
"""Columns that the CSV cases leave out: MLflow cannot read dates from CSV."""


def row(**changes: Any) -> dict[str, Any]:
    return {**ROW, **changes}


def records(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"dataframe_records": list(rows)}


def split(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": list(rows[0]), "data": [list(each.values()) for each in rows], **more}}


def columns(*rows: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [each[name] for each in rows] for name in rows[0]}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if name not in names}


def csv(*rows: dict[str, Any]) -> str:
    def cell(value: Any) -> str:
        return "" if value is None else str(value)

    rows = tuple({name: value for name, value in each.items() if name not in DATES} for each in rows)
    return "".join(",".join(line) + "\n" for line in [list(rows[0]), *([cell(x) for x in r.values()] for r in rows)])


TWO = [row(), row(a=7.25, b=1, city="Paris", flag=False, at="2020-01-01T22:30:00", n=None)]
CORPUS = [
    Case("split", split(TWO)),
    Case("split, index", split(TWO, index=[5, 6])),
    Case("split, one row", split(TWO[:1])),
    Case("split, a hundred rows", split([row(a=x / 10) for x in range(100)])),
    Case("split, only what is needed", split([NEEDED])),
    Case("split, other order", split([dict(reversed(ROW.items()))])),
    Case("split, extra column", split([row(extra="x")])),
    Case("records", records(*TWO)),
    Case("records, only what is needed", records(NEEDED)),
    Case("records, extra column", records(row(extra=[1, 2]) | {"extra": 3})),
    Case("instances", {"instances": TWO}),
    Case("inputs of columns", {"inputs": columns(*TWO)}),
    Case("inputs of rows", {"inputs": TWO}),
    Case("inputs of one row of scalars", {"inputs": ROW}),
    Case("csv", csv(*TWO), "text/csv"),
    Case("csv, charset", csv(*TWO), "text/csv; charset=utf-8"),
    Case("csv, quoted", csv(*TWO).replace("Rome", '"Rome"'), "text/csv"),
    Case("csv, line ends of Windows", csv(*TWO).replace("\n", "\r\n"), "text/csv"),
    Case("csv, a text of digits", csv(row(city="123")), "text/csv"),
    Case("csv, a null", csv(row(n=None)), "text/csv"),
    Case(
        "csv, a date",
        f"at,{csv(ROW)}".replace("\n", "\n2020-01-02,", 1),
        "text/csv",
        "kinder",
        "MLflow reads no dates from CSV",
    ),
    Case("json, charset", records(*TWO), "application/json; charset=utf-8"),
    Case("params", {**records(*TWO), "params": {"threshold": 0.3}}),
    Case("params that are null", {**records(*TWO), "params": None}),
    Case("another word beside", {**records(*TWO), "note": "x"}),
    Case("a null where there were nulls", records(row(n=None))),
    Case("a null entity and time", records(row(who=None, when=None))),
    Case("an integer for a float", records(row(a=2))),
    Case("a whole float for an integer", records(row(b=3.0))),
    Case("zero and minus zero", records(row(a=-0.0, b=0))),
    Case("tiny and large floats", records(row(a=1e-300), row(a=-5e3))),
    Case("unicode", records(row(city="東京 🗼"))),
    Case("escaped unicode", b'{"dataframe_records": [' + json.dumps(row(city="é")).encode() + b"]}"),
    Case("empty text", records(row(city=""))),
    Case("a date without time", records(row(at="2020-02-03"))),
    Case("a date with microseconds", records(row(at="2020-02-03T04:05:06.123456"))),
    Case("a null date", records(row(at=None))),
    Case("NaN", json.dumps(records(row(n=float("nan")))).encode()),
    Case("NaN in a required column", json.dumps(records(row(a=float("nan")))).encode()),
    Case("white space around", b"  " + json.dumps(records(ROW)).encode() + b"\n"),
    # Odd ones.
    Case("nothing", b""),
    Case("no JSON", b"hello"),
    Case("half a JSON", b'{"dataframe_split": {"columns": ["a"]'),
    Case("no UTF-8", b'{"dataframe_records": [{"city": "\xff\xfe"}]}'),
    Case("a list", [ROW]),
    Case("a number", 3),
    Case("a text", "x"),
    Case("null", None),
    Case("an empty object", {}),
    Case("an unknown form", {"rows": [ROW]}),
    Case("inputs and instances", {"inputs": columns(*TWO), "instances": TWO}),
    Case("split and records", {**split(TWO), **records(*TWO)}),
    Case("signature_name", {"signature_name": "x", "instances": TWO}),
    Case("split without data", {"dataframe_split": {"columns": ["a"]}}),
    Case("split without columns", {"dataframe_split": {"data": [list(ROW.values())]}}),
    Case("split with another key", split(TWO, dtypes=[1])),
    Case("split that is a list", {"dataframe_split": [ROW]}),
    Case("split that is null", {"dataframe_split": None}),
    Case("split, too many cells", {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2, 3]]}}),
    Case("records that are an object", {"dataframe_records": ROW}),
    Case("records that are a text", {"dataframe_records": "x"}),
    Case("records of numbers", {"dataframe_records": [1, 2]}),
    Case("instances of lists", {"instances": [list(ROW.values())]}),
    Case("instances that are a number", {"instances": 3}),
    Case("a text for a float", records(row(a="much"))),
    Case("a text for an integer", records(row(b="three"))),
    Case("a text for a date", records(row(at="tomorrow, perhaps"))),
    Case("half a number for an integer", records(row(b=3.5)), differs="stricter", why="MLflow cuts it to 3, silently"),
    Case("a list for a float", records(row(a=[1, 2]))),
    Case("an object for a float", records(row(a={"x": 1}))),
    Case("an object for a text", records(row(city={"x": 1}))),
    Case("a huge integer", records(row(b=1 << 80))),
    Case("Infinity", json.dumps(records(row(a=float("inf")))).encode()),
    Case(
        "nested a thousand times",
        b'{"dataframe_records": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        differs="status",
        why="MLflow fails",
    ),
    Case("columns of different lengths", {"inputs": {**columns(*TWO), "a": [1.0]}}),
    Case("csv, nothing", "", "text/csv"),
    Case("csv, only names", "a,b\n", "text/csv"),
    Case("csv, a text for a float", csv(row(a="much")), "text/csv"),
    Case("csv, no UTF-8", b"a,city\n1,\xff\n", "text/csv"),
    Case("csv, Latin-1", csv(*TWO), "text/csv; charset=latin-1"),
    Case("csv, header parameter", csv(*TWO), "text/csv; header=present"),
    Case("another content type", csv(*TWO), "text/plain"),
    Case(
        "parquet",
        b"PAR1",
        "application/vnd.apache.parquet",
        "status",
        "not read here: a small file can unpack to any size; Arrow's stream format is, at /models/M/predict",
    ),
    Case("a column missing", records(without("a")), differs="kinder", why="what is not sent is null"),
    Case("a column missing in csv", csv(without("a")), "text/csv", "kinder", "what is not sent is null"),
    Case("a column missing in one row", records(ROW, without("city"))),
    Case("no rows", records()),
]


def sent(client: httpx.Client, case: Case) -> httpx.Response:
    body = case.body if isinstance(case.body, bytes | str) and case.name != "a text" else json.dumps(case.body)
    return client.post("/invocations", content=body, headers={"content-type": case.kind})


def predictions(answer: httpx.Response) -> list[Any]:
    found = json.loads(answer.text)["predictions"]
    assert all(isinstance(value, float) for value in found)
    return [round(value, 12) for value in found]


def test_the_corpus_is_large_and_names_are_unique() -> None:
    assert len({case.name for case in CORPUS}) == len(CORPUS) >= 60


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_the_same_answer(case: Case, ours: Any, theirs: httpx.Client) -> None:
    here, there = sent(ours.http, case), sent(theirs, case)
    found = "same"
    if here.status_code == 200 and there.status_code == 200:
        assert predictions(here) == predictions(there)
    elif here.status_code == 200:
        found = "kinder"
    elif there.status_code == 200:
        found = "stricter"
    elif here.status_code != there.status_code:
        found = "status"
    assert (found, bool(case.why)) == (case.differs or "same", bool(case.differs)), (here.text, there.text[:500])
    if here.status_code != 200:
        told = here.json()
        assert told.keys() == {"error_code", "message"}
        assert told["error_code"].isupper() and told["message"]
        assert here.status_code < 500


def test_the_scoring_client_of_mlflow(ours: Any) -> None:
    """It sends what a data frame holds, as MLflow writes it, to the process that it is told of."""
    ask = f"""
import json, sys
import pandas
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
client = ScoringServerClient("127.0.0.1", {ours.port})
client.wait_server_ready(timeout=10, scoring_server_proc=None)
rows = pandas.DataFrame(json.loads(sys.argv[1]))
rows["at"] = pandas.to_datetime(rows["at"])
answer = client.invoke(rows, params={{"threshold": 0.3}})
print(json.dumps(list(answer.get_predictions().iloc[:, 0])))
"""
    argv = [sys.executable, "-W", "ignore", "-c", ask, json.dumps(TWO)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [round(value, 12) for value in json.loads(done.stdout)] == predictions(sent(ours.http, Case("", split(TWO))))
