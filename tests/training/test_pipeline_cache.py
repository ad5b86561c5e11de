"""What the cache keeps comes back as it was, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from orrery.errors import ProjectFailed
from orrery.pipeline.pipeline import Cache, Input

CHAIN = """
    import numpy as np
    from pathlib import Path
    RUNS = Path("runs.txt")

    def _ran(name):
        with open("runs" + ".txt", "a") as file:
            file.write(name + " ")

    def big(start):
        _ran("big")
        return np.arange(10_000) + start

    def middle(big):
        _ran("middle")
        return {"sum": int(big.sum()), "text": "x" * 5000}

    def end(middle, *, by=1):
        _ran("end")
        return middle["sum"] * by
""".replace('    RUNS = Path("runs.txt")\n', "")
START = {"start": Input(1, "v1")}


@pytest.fixture
def chain(project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    return project.write(CHAIN)


def ran() -> list[str]:
    file = Path("runs.txt")
    text = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return text


def entries(cache: Cache, kind: str) -> list[Path]:
    return [path for path in (cache.folder / kind).rglob("*") if path.is_file()]


VALUES = {
    "none": None,
    "text": "text" * 5000,
    "list": [1, 2.5, {"a": (True, b"x")}],
    "array": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "frame": pl.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [[1], [2, 3]]}).with_columns(
        d=pl.lit("2013-01-01").str.to_date(), e=pl.col("b").cast(pl.Categorical)
    ),
    "series": pl.Series("s", [1.5, None]),
    "lazyframe": pl.LazyFrame({"a": [1, 2]}).filter(pl.col("a") > 1),
}


@pytest.mark.parametrize("name", VALUES)
def test_every_kind_of_value_comes_back_as_it_was(project: Any, name: str) -> None:
    project.write("def step(value):\n    return value\ndef reader(step, *, turn=0):\n    return step")
    inputs = {"value": Input(lambda: VALUES[name], "v1")}
    project.run("step", inputs)
    result = project.run("step", inputs)
    assert result.reports[0].cached
    back, before = result.values["step"], VALUES[name]
    assert type(back) is type(before)
    if isinstance(before, pl.LazyFrame):
        assert back.collect().equals(before.collect())
    elif isinstance(before, pl.DataFrame | pl.Series):
        assert back.equals(before) and back.dtype == before.dtype if isinstance(before, pl.Series) else True
        assert not isinstance(before, pl.DataFrame) or (back.schema == before.schema and back.equals(before))
    elif isinstance(before, np.ndarray):
        assert np.array_equal(back, before) and back.dtype == before.dtype
    else:
        assert back == before


def test_a_model_of_scikit_learn_is_kept(project: Any) -> None:
    project.write("""
        import numpy as np
        from sklearn.linear_model import LogisticRegression
        def model(*, c=1.0):
            return LogisticRegression(C=c).fit(np.arange(20).reshape(-1, 1), np.arange(20) > 9)
        def score(model):
            return float(model.predict_proba([[12]])[0, 1])
    """)
    first = project.run(["model", "score"])
    again = project.run(["score", "model"])
    assert [each.cached for each in again.reports] == [True, True]
    assert again.values["score"] == first.values["score"]
    assert again.values["model"].predict_proba([[12]])[0, 1] == first.values["score"]


def test_only_what_somebody_reads_is_loaded(chain: Any) -> None:
    chain.run("end", START)
    for path in entries(chain.cache, "values"):
        path.unlink()
    untouched = {"start": Input(lambda: pytest.fail("a fully cached run loads no dataset"), "v1")}
    ran()
    assert chain.run("end", untouched).values["end"] == chain.run("end", START).values["end"]
    assert ran() == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "gone"])
@pytest.mark.parametrize("kind", ["records", "values"])
def test_a_damaged_entry_is_computed_again_and_never_served(chain: Any, kind: str, damage: str) -> None:
    right = chain.run("end", START, by=2).values["end"]
    ran()
    for path in entries(chain.cache, kind):
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        elif damage == "flipped":
            path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        else:
            path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    assert chain.run("end", START, by=4).values["end"] == 2 * right
    assert set(ran()) >= {"middle", "end"}
    whole = chain.run(["big", "middle", "end"], START, by=2)
    assert whole.values["end"] == right
    assert np.array_equal(whole.values["big"], np.arange(10_000) + 1)
    assert whole.values["middle"]["text"] == "x" * 5000


def test_a_lost_value_of_a_step_that_gives_another_result_now_is_not_mixed_with_the_old(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`changing` is not deterministic, so what was made from its old result must not stand beside its new one."""
    monkeypatch.chdir(tmp_path)
    project.write("""
        import itertools, os
        def changing():
            number = len(os.listdir("."))
            open("file" + str(number), "w").close()
            return str(number) * 5000
        def one(changing):
            return changing
        def two(one, changing, *, turn=0):
            return one == changing
    """)
    assert project.run("two").values["two"] is True
    for path in entries(project.cache, "values"):
        path.unlink()
    result = project.run("two", turn=1)
    assert result.values["two"] is True
    assert [each.name for each in result.reports] == ["changing", "one", "two"]
    assert "gone" in result.reports[0].reason


def test_readers_cannot_change_what_others_read(project: Any) -> None:
    project.write("""
        def rows():
            return [1, 2]
        def careless(rows, frame):
            rows.append(3)
            frame.insert_column(0, frame["a"].alias("b"))
            return len(rows), frame.width
        def careful(rows, frame, careless):
            return len(rows), frame.width
        def late(careless, rows, frame, *, turn=0):
            return len(rows), frame.width
    """)
    frame = pl.DataFrame({"a": [1]})
    inputs = {"frame": Input(frame, "v1")}
    first = project.run(["careless", "careful", "late", "rows"], inputs)
    assert first.values == {"careless": (3, 2), "careful": (2, 1), "late": (2, 1), "rows": [1, 2]}
    assert project.run("late", inputs, turn=1).values["late"] == (2, 1), "as when it comes from the cache"
    assert frame.width == 1


def test_a_run_goes_on_where_a_killed_one_stopped(chain: Any, tmp_path: Path) -> None:
    chain.edit('_ran("end")', '_ran("end")\n    if Path("die").exists(): import os; os._exit(9)')
    code = textwrap.dedent(f"""
        from pathlib import Path
        from orrery.pipeline.pipeline import *
        pipeline = Pipeline(load_module(Path({str(chain.root)!r})), ["start"])
        cache = Cache(Path({str(chain.cache.folder)!r}))
        print(pipeline.run("end", {{"start": Input(1, "v1")}}, {{}}, cache, "environment 1").values["end"])
    """)
    Path("die").touch()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert ran() == ["big", "middle", "end"]
    Path("die").unlink()
    chain.run("end", START)
    assert ran() == ["end"]


def test_a_failed_step_keeps_what_was_done_before(project: Any) -> None:
    project.write("def a():\n    return 1\ndef b(a):\n    return a / 0")
    with pytest.raises(ProjectFailed, match=r"step b failed: ZeroDivisionError: .* \(pipeline.py, line 4\)"):
        project.run("b")
    result = project.edit("a / 0", "a / 1").run("b")
    assert [each.cached for each in result.reports] == [True, False]


def test_processes_that_race_agree(chain: Any) -> None:
    code = textwrap.dedent(f"""
        from pathlib import Path
        from orrery.pipeline.pipeline import *
        pipeline = Pipeline(load_module(Path({str(chain.root)!r})), ["start"])
        cache = Cache(Path({str(chain.cache.folder)!r}))
        for turn in range(30):
            inputs = {{"start": Input(turn % 5, f"v{{turn % 5}}")}}
            value = pipeline.run("end", inputs, {{"by": turn % 3}}, cache, "e").values["end"]
            assert value == (sum(range(10_000)) + 10_000 * (turn % 5)) * (turn % 3), value
            if turn % 4 == 3:
                cache.prune(50_000)
    """)
    racing = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    for process in racing:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert not list((chain.cache.folder / "tmp").iterdir())


def test_pruning_takes_the_least_recently_used(chain: Any) -> None:
    inputs = {version: {"start": Input(int(version), version)} for version in "123"}
    for given in inputs.values():
        chain.run("big", given)
        time.sleep(0.01)
    chain.run("big", inputs["1"])
    size = chain.cache.size()
    assert 240_000 < size < 260_000
    removed = chain.cache.prune(170_000)
    assert chain.cache.size() == size - removed <= 170_000
    ran()
    for version, expected in {"1": [], "3": [], "2": ["big"]}.items():
        chain.run("big", inputs[version])
        assert ran() == expected
    chain.cache.prune(0)
    assert chain.cache.size() == 0


def test_a_cache_that_cannot_be_written_costs_time_not_the_training(chain: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    chain.cache = Cache(tmp_path / "file" / "cache")
    result = chain.run("end", START)
    assert result.values["end"] == sum(range(10_000)) + 10_000
    assert "the cache cannot be written (Not a directory)" in result.reports[0].reason


def test_the_folder_is_the_owners_alone(chain: Any) -> None:
    chain.run("end", START)
    assert os.stat(chain.cache.folder).st_mode & 0o077 == 0


def test_a_cached_run_imports_nothing_heavy(chain: Any) -> None:
    chain.run("end", START)
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from orrery.pipeline.pipeline import *
        pipeline = Pipeline(load_module(Path({str(chain.root)!r})), ["start"])
        cache = Cache(Path({str(chain.cache.folder)!r}))
        assert pipeline.run("end", {{"start": Input(1, "v1")}}, {{}}, cache, "environment 1").reports[-1].cached
        heavy = {{"polars", "sklearn", "pandas", "pyarrow", "mlflow", "scipy", "cloudpickle", "numpy"}}
        print(sorted(heavy & set(sys.modules)))
    """)
    chain.edit("import numpy as np\n", "").edit("np.arange(10_000) + start", "[start]")
    chain.edit("int(big.sum())", "big[0]")
    chain.run("end", START)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
