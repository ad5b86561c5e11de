"""A project that `init` writes works as it is: its tests pass, and it trains here, from the cache the second time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orrery.cli.sample import write_sample

slow = pytest.mark.slow


@pytest.mark.parametrize(
    "task", ["binary", pytest.param("multiclass", marks=slow), pytest.param("regression", marks=slow)]
)
def test_a_fresh_project_trains_as_it_is(orrery, tmp_path: Path, task: str) -> None:
    [made] = orrery("init", "bakery", tmp_path / task, "--task", task, "--json").lines()
    assert made == {"model": "bakery", "folder": str(tmp_path / task), "task": task, "committed": True}
    folder = tmp_path / task
    log = subprocess.run(["git", "-C", str(folder), "status", "-sb"], capture_output=True, text=True)
    assert log.stdout.split() == ["##", "main"]
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q", folder], capture_output=True, text=True, cwd=folder)
    assert tests.returncode == 0, tests.stdout
    sample = f"bakery={folder / 'data' / 'sample.csv'}"
    first = orrery("run", folder, "--data", sample, "--json")
    assert first.code == 0, first.err
    *steps, end = first.lines()
    assert end["ok"]
    assert end["holdout_rows"] == 112
    assert {step["cached"] for step in steps} == {False}
    if task == "binary":
        again = orrery("run", folder, "--data", sample, "--json").lines()[:-1]
        assert {step["cached"] for step in again} == {True}
        changed = orrery("run", folder, "--data", sample, "--param", "iterations=5", "--json").lines()[:-1]
        by_name = {step["name"]: step for step in changed}
        assert by_name["features"]["cached"]
        assert not by_name["model"]["cached"]
        assert "iterations" in by_name["model"]["reason"]


def test_a_project_that_fails_is_told_where(orrery, tmp_path: Path) -> None:
    orrery("init", "bakery", tmp_path / "bakery")
    file = tmp_path / "bakery" / "pipeline.py"
    file.write_text(
        file.read_text().replace("return boosting.fit(", "raise ValueError('no flour')\n    return boosting.fit(")
    )
    ran = orrery("run", tmp_path / "bakery", "--data", f"sales={tmp_path / 'bakery' / 'data' / 'sample.csv'}")
    assert ran.code == 1
    assert "no flour" in ran.err
    assert "pipeline.py, line" in ran.err
    assert "features" in ran.out


def test_what_cannot_be_run_is_said(orrery, tmp_path: Path) -> None:
    nothing = orrery("run")
    assert nothing.code == 1
    assert "There is no orrery.toml" in nothing.err
    orrery("init", "bakery", tmp_path / "bakery")
    without_data = orrery("run", tmp_path / "bakery")
    assert without_data.code == 1
    assert "There is no" in without_data.err
    wrong = orrery("run", tmp_path / "bakery", "--data", "flour=x.csv")
    assert wrong.code == 1
    assert "names: sales" in wrong.err


def test_nothing_is_overwritten(orrery, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years")
    ran = orrery("init", "bakery", tmp_path / "full")
    assert ran.code == 1
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    assert orrery("init", "Bakery").code == 1
    assert orrery("init", "bakery", "--task", "ranking").code == 1


def test_explain_says_where_each_value_comes_from(orrery, tmp_path: Path) -> None:
    orrery("init", "bakery", tmp_path / "bakery")
    rows = {row["key"]: row for row in orrery("explain", "config", tmp_path / "bakery", "--json").lines()}
    assert rows["model.task"] == {"key": "model.task", "value": "binary", "from": "file"}
    assert rows["rollout.alpha"] == {"key": "rollout.alpha", "value": 0.05, "from": "default"}
    assert rows["gates.holdout"]["from"] == "file"
    text = orrery("explain", "config", tmp_path / "bakery").out
    assert "[rollout.redesign]" in text
    schema = json.loads(orrery("explain", "schema").out)
    assert schema["title"] == "orrery.toml"


def test_an_unknown_key_is_an_error_that_names_the_nearest(orrery, tmp_path: Path) -> None:
    orrery("init", "bakery", tmp_path / "bakery")
    file = tmp_path / "bakery" / "orrery.toml"
    file.write_text(file.read_text() + "\n[rollout]\nalfa = 0.1\n")
    ran = orrery("explain", "config", tmp_path / "bakery")
    assert ran.code == 1
    assert "has no key 'alfa'" in ran.err
    assert "Did you mean 'alpha'?" in ran.err


def test_the_sample_is_always_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_sample(tmp_path / name, "regression")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
