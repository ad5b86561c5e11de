"""The public names, what they return from a home made here, and that they cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

import orrery
from orrery.app import Orrery
from orrery.errors import NotFound, OrreryError
from orrery.settings import Settings
from orrery.timeline.event import Draft

HEAVY = {"mlflow", "sklearn", "polars", "scipy", "pandas", "deltalake", "pyarrow", "fastapi"}
WHEN = datetime(2013, 6, 10, 5, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "model": {"name": "tides", "task": "regression", "target": "height"},
    "data": {"tides": "tides"},
}


@pytest.fixture
def where(home: Settings) -> str:
    """A home with two versions of a dataset, and a model whose first version answers in production."""
    opened = Orrery(home)
    for number in (1, 2):
        frame = pl.DataFrame({"port": ["north", "south"], "height": [1.5 * number, 2.5 * number]})
        opened.add_data("tides", frame, why="measured", actor="nora", key=f"day-{number}")
    pushed = {"commit": "abc", "message": "m", "author": "ann", "spec": SPEC}
    trained = {"run": "r", "commit": "abc", "change": "redesign", "data": {"tides": 1}}
    about: dict[str, Any] = {"actor": "nora", "model": "tides", "occurred_at": WHEN}
    opened.timeline.append(
        [
            Draft(kind="pushed", why="a push", data=pushed, **about),
            Draft(kind="trained", why="<script>alert('tides & waves')</script>", data=trained, version=1, **about),
            Draft(kind="promoted", why="better by 0.1", version=1, environment="production", **about),
        ]
    )
    return str(home.home)


def test_the_public_names() -> None:
    assert orrery.__all__ == ["dataset", "model", "predictions", "timeline"]
    public = {name for name, value in vars(orrery).items() if not name.startswith("_") and callable(value)}
    assert public == set(orrery.__all__)
    assert all(getattr(orrery, name).__doc__ for name in orrery.__all__)


def test_a_dataset_is_read_back(where: str) -> None:
    newest, first = orrery.dataset("tides", home=where), orrery.dataset("tides", 1, home=where)
    assert first.polars().sort("port").to_dict(as_series=False) == {"port": ["north", "south"], "height": [1.5, 2.5]}
    assert sorted(newest.polars()["height"].to_list()) == [1.5, 2.5, 3.0, 5.0]
    assert newest.pandas().shape == (4, 2)
    for name, version in (("waves", None), ("tides", 9)):
        with pytest.raises(NotFound):
            orrery.dataset(name, version, home=where)


def test_a_timeline_reads_as_text(where: str) -> None:
    history = orrery.timeline("tides", home=where)
    assert len(history) == 3 and [event.kind for event in history] == ["pushed", "trained", "promoted"]
    assert repr(history).splitlines() == [
        "2013-06-10 05:00 - - pushed a push",
        "2013-06-10 05:00 v1 - trained <script>alert('tides & waves')</script>",
        "2013-06-10 05:00 v1 production promoted better by 0.1",
    ]
    with pytest.raises(NotFound):
        orrery.timeline("waves", home=where)


def test_a_timeline_in_a_notebook_runs_nothing_that_was_written_into_it(where: str) -> None:
    drawn = orrery.timeline("tides", home=where)._repr_html_()
    assert "<script" not in drawn and "&lt;script&gt;alert(&#x27;tides &amp; waves&#x27;)&lt;/script&gt;" in drawn
    assert drawn.startswith("<table><caption>tides</caption>") and drawn.count("<tr>") == 3


def test_a_model_says_who_answers_and_what_is_missing(where: str) -> None:
    served = orrery.model("tides", home=where)
    assert repr(served) == "<tides v1 in production>" and served.address.startswith("http://127.0.0.1:")
    with pytest.raises(NotFound, match="staging"):
        orrery.model("tides", "staging", home=where)
    with pytest.raises(NotFound):
        orrery.model("waves", home=where)
    served.address = "http://127.0.0.1:9"  # nothing listens there
    with pytest.raises(OrreryError, match="orrery up"):
        served.predict([{"port": "north"}])


def brought(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], check=True, capture_output=True, text=True
    )
    return {name.split(".")[0] for name in done.stdout.split()} & HEAVY


@pytest.mark.parametrize("module", ["orrery", "orrery.timeline.store", "orrery.timeline.states", "orrery.spec"])
def test_an_import_brings_nothing_heavy_along(module: str) -> None:
    assert brought(f"import {module}") == set()


def test_what_is_heavy_would_be_seen() -> None:
    assert brought("import orrery.data.lake") >= {"polars", "deltalake"}
