"""A change of anything that a step depends on runs it again, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from orrery.pipeline.pipeline import Cache, Input, Pipeline, load_module

PIPELINE = """
    import functools
    from pathlib import Path
    import cleaning
    import texts.words as words
    from texts import upper
    LIMIT = 3
    CODES = {"AA", "B6", "DL", "UA", "WN"}
    TABLE = {"a": [1, 2], "b": (3, None)}
    _twice = lambda x: 2 * x

    def _make(n):
        def inner(x):
            return x + n
        return inner

    _closure = _make(5)
    _other_closure = _make(6)
    _part = functools.partial(_make, 9)

    def _traced(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args) + 0
        return wrapper

    @_traced
    def _wrapped(x):
        return x * 7

    @functools.lru_cache
    def _remembered(x):
        return x * 11

    class _Base:
        offset = 100
        def shift(self, x):
            return x + self.offset

    class _Scaler(_Base):
        def scale(self, x):
            return self.shift(x) * 4

    _SCALER = _Scaler()

    def _local(x):
        from texts.late import late
        return late(x)

    def _helper(x, by=2):
        return _deeper(x) * by

    def _deeper(x):
        return x - 1

    def result(start):
        '''Documentation.'''
        total = _helper(start) + cleaning.clean(start) + words.count("a b")   # a comment
        total += LIMIT + len(CODES) + len(TABLE) + _twice(1) + _closure(1) + _other_closure(1) + _part()(2)
        total += _wrapped(1) + _remembered(2) + _SCALER.scale(3) + _local(1) + len(upper("x"))
        return total

    def unrelated(start):
        return start
"""
FILES = {
    "pipeline.py": PIPELINE,
    "cleaning.py": "import shared\nSIZE = 10\n"
    "def clean(x):\n    return shared.twist(x) + SIZE\ndef unused():\n    return 1\n",
    "shared.py": "def twist(x):\n    return -x\n",
    "texts/__init__.py": "def upper(s):\n    return s.upper()\n",
    "texts/words.py": "from . import splitting\ndef count(s):\n    return len(splitting.split(s))\n",
    "texts/splitting.py": "def split(s):\n    return s.split()\n",
    "texts/late.py": "def late(x):\n    return x + 1000\n",
}
START = {"start": Input(1, "v1")}

EDITS = {
    "its own code": ("total = _helper", "total = 1 + _helper", "pipeline.py", "code of result changed"),
    "a helper": ("_deeper(x) * by", "_deeper(x) * by * 2", "pipeline.py", "helper _helper"),
    "a helper's helper": ("return x - 1", "return x - 2", "pipeline.py", "helper _deeper"),
    "a helper's default": ("by=2", "by=3", "pipeline.py", "helper _helper"),
    "a constant": ("LIMIT = 3", "LIMIT = 4", "pipeline.py", "constant LIMIT changed 3 -> 4"),
    "a constant set": ('"WN"}', '"XX"}', "pipeline.py", "constant CODES"),
    "a constant within a table": ("(3, None)", "(4, None)", "pipeline.py", "constant TABLE"),
    "a lambda": ("2 * x", "3 * x", "pipeline.py", "helper _twice"),
    "a closure's value": ("_make(5)", "_make(55)", "pipeline.py", "constant _closure.n changed 5 -> 55"),
    "another closure's value": ("_make(6)", "_make(66)", "pipeline.py", "_other_closure"),
    "a partial's argument": ("_make, 9", "_make, 99", "pipeline.py", "constant _part"),
    "a decorated helper": ("x * 7", "x * 8", "pipeline.py", "helper _wrapped"),
    "a decorator": ("(*args) + 0", "(*args) + 1", "pipeline.py", "helper"),
    "a cached helper": ("x * 11", "x * 12", "pipeline.py", "helper _remembered"),
    "a method": ("self.shift(x) * 4", "self.shift(x) * 5", "pipeline.py", "constant _SCALER"),
    "an inherited method": ("x + self.offset", "x - self.offset", "pipeline.py", "constant _SCALER"),
    "a class attribute": ("offset = 100", "offset = 101", "pipeline.py", "constant _SCALER"),
    "another module": ("shared.twist(x)", "2 * shared.twist(x)", "cleaning.py", "helper cleaning.clean"),
    "another module's constant": ("SIZE = 10", "SIZE = 11", "cleaning.py", "cleaning.SIZE changed 10 -> 11"),
    "another module's module": ("-x", "-x - 1", "shared.py", "helper shared.twist"),
    "a package's function": ("s.upper()", "s.upper() * 2", "texts/__init__.py", "helper texts.upper"),
    "a relative import": ("s.split()", "s.split('b')", "texts/splitting.py", "helper texts.splitting.split"),
    "a local import": ("x + 1000", "x + 1001", "texts/late.py", "helper texts.late.late"),
}
NO_EDITS = {
    "a comment": ("# a comment", "# another", "pipeline.py"),
    "documentation": ("'''Documentation.'''", "'''Better.'''", "pipeline.py"),
    "layout": ("total = _helper(start) + ", "total = (_helper( start )\n             + ", "pipeline.py"),
    "lines above": ("LIMIT = 3", "\n\n# new\nLIMIT = (3)", "pipeline.py"),
    "another step": ("return start\n", "return start + 1\n", "pipeline.py"),
    "what nobody calls": ("return 1", "return 2", "cleaning.py"),
}


@pytest.fixture
def full(project: Any) -> Any:
    for file, text in FILES.items():
        project.write(text, file)
    return project


@pytest.mark.parametrize("what", EDITS)
def test_a_change_of_what_is_reached_runs_the_step_again(full: Any, what: str) -> None:
    before = full.run("result", START)
    assert full.report("result", START).cached
    old, new, file, words = EDITS[what]
    if what == "layout":
        new = f"{new})"
    after = full.edit(old, new, file).run("result", START)
    assert not after.reports[0].cached
    assert words in after.reports[0].reason
    assert after.reports[0].key != before.reports[0].key
    assert full.report("result", START).cached


@pytest.mark.parametrize("what", NO_EDITS)
def test_a_change_of_nothing_that_matters_keeps_the_result(full: Any, what: str) -> None:
    full.run("result", START)
    old, new, file = NO_EDITS[what]
    full.edit(old, new, file)
    if what == "layout":
        full.edit('words.count("a b")', 'words.count("a b"))')
    assert full.report("result", START).cached


def test_keys_are_the_same_in_another_process_and_folder(full: Any, tmp_path: Path) -> None:
    """Sets have another order in each process, and each commit has another folder."""
    here = full.report("result", START).key
    code = textwrap.dedent(f"""
        from pathlib import Path
        from orrery.pipeline.pipeline import *
        pipeline = Pipeline(load_module(Path({str(tmp_path / "moved")!r})), ["start"])
        cache = Cache(Path({str(tmp_path / "other cache")!r}))
        print(pipeline.run("result", {{"start": Input(1, "v1")}}, {{}}, cache, "environment 1").reports[0].key)
    """)
    full.root.rename(tmp_path / "moved")
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert done.stdout.strip() == here


def test_parameters_versions_and_environment_are_part_of_the_key(project: Any) -> None:
    project.write("def model(flights, *, depth: int = 6):\n    return flights + depth")

    def report(key: str = "v3", environment: str = "e1", **params: Any) -> Any:
        return project.report("model", {"flights": Input(1, key)}, environment, **params)

    assert report().reason == "first run"
    assert report().reason == "cached"
    assert report(depth=6).cached, "the default written out is the default"
    assert report(depth=8).reason == "parameter depth changed 6 -> 8"
    assert report("v4", depth=8).reason == "dataset flights v3 -> v4"
    assert report("v4", "e2", depth=8).reason == "environment changed"
    assert report("v5", "e2", depth=7).reason == "parameter depth changed 8 -> 7; dataset flights v4 -> v5"
    assert report().cached, "what was known before is still known"
    assert report(depth=6.0).cached is False, "6.0 is not 6"


def test_a_changed_default_of_a_parameter_is_a_changed_parameter(project: Any) -> None:
    project.write("def model(*, depth=6):\n    return depth")
    project.run("model")
    project.edit("depth=6", "depth=7")
    assert project.report("model").reason == "parameter depth changed 6 -> 7"
    assert project.report("model", depth=6).cached


def test_an_edit_with_the_same_outcome_stops_early(project: Any) -> None:
    project.write("def a():\n    return [1, 2]\ndef b(a):\n    return sum(a)")
    project.run("b")
    result = project.edit("[1, 2]", "[1] + [2]").run("b")
    assert [(each.name, each.cached) for each in result.reports] == [("a", False), ("b", True)]
    changed = project.edit("[1] + [2]", "[1, 3]").run("b")
    assert changed.reports[1].reason == "input a changed"
    assert changed.values["b"] == 4


@pytest.mark.parametrize(
    "how", ["input", "path input", "parameter", "constant", "literal", "checkout", "joined", "named"]
)
def test_a_file_rewritten_in_place_is_another_input(project: Any, tmp_path: Path, monkeypatch: Any, how: str) -> None:
    monkeypatch.chdir(tmp_path)
    (project.root / "tables").mkdir(parents=True)
    file = {"checkout": project.root, "joined": project.root / "tables", "named": project.root / "tables"}.get(
        how, tmp_path
    ) / "rows.csv"
    inputs: dict[str, Input] = {}
    params: dict[str, Any] = {}
    if how in ("input", "path input"):
        project.write("from pathlib import Path\ndef step(where):\n    return Path(where).read_text()")
        inputs["where"] = Input(str(file) if how == "input" else file, "v1")
    elif how == "parameter":
        project.write("from pathlib import Path\ndef step(*, where=''):\n    return Path(where).read_text()")
        params["where"] = file
    elif how == "constant":
        project.write(f"from pathlib import Path\nP = Path({str(file)!r})\ndef step():\n    return P.read_text()")
    elif how == "literal":
        project.write("from pathlib import Path\ndef step():\n    return Path('rows.csv').read_text()")
    else:
        joined = {"checkout": "'rows.csv'", "joined": "'tables' / 'rows.csv'", "named": "FILE"}[how]
        project.write(
            "from pathlib import Path\nFILE = 'tables/rows.csv'\n"
            f"def step():\n    return (Path(__file__).parent / {joined}).read_text()"
        )
    for content, cached in [("one", False), ("one", True), ("two", False), ("two", True)]:
        file.write_text(content)
        os.utime(file, (1, 1))  # neither the path nor the times nor the size tell
        result = project.run("step", inputs, **params)
        assert result.values["step"] == content
        assert result.reports[-1].cached is cached


def test_a_file_that_a_step_wrote_is_part_of_its_result(project: Any, tmp_path: Path) -> None:
    project.write("""
        from pathlib import Path
        def written(*, to):
            Path(to).write_text("good")
            return Path(to)
        def read(written):
            return written.read_text()
    """).edit("*, to", "*, to=''")
    file = tmp_path / "out.txt"
    assert project.run("read", to=f"{file}").values["read"] == "good"
    project.run("read", to=f"{file}")
    assert project.report("read", to=f"{file}").cached
    file.write_text("bad")
    result = project.run("read", to=f"{file}")
    assert result.values["read"] == "good"
    assert not result.reports[0].cached


def test_objects_of_the_project_carry_the_code_of_their_methods(project: Any) -> None:
    """A reader calls methods that its own text does not name."""
    project.write("""
        import enum
        class Color(enum.Enum):
            RED = 1
        class Model:
            color = Color.RED
            def predict(self):
                return 1
        def model():
            return Model()
        def score(model):
            return model.predict(), isinstance(model, Model), model.color is Color.RED
    """)
    assert project.run("score").values["score"] == (1, True, True)
    result = project.edit("return 1", "return 2").run("score")
    assert result.values["score"] == (2, True, True)
    # Only the reader runs; the model comes from the cache, as the class that the reader knows.
    result = project.edit("model.predict(), ", "model.predict() * 10, ").run("score")
    assert [each.cached for each in result.reports] == [True, False]
    assert result.values["score"] == (20, True, True)


def test_what_cannot_be_keyed_is_never_cached_and_says_why(project: Any) -> None:
    project.write("""
        import threading
        LOCK = threading.Lock()
        MEMO = {}
        COUNT = 0
        def locked():
            with LOCK:
                return 1
        def memo():
            MEMO["x"] = len(MEMO)
            return 1
        def counted():
            global COUNT
            COUNT += 1
            return 1
        def generator():
            return (i for i in "abc")
        def reader(generator):
            return list(generator)
    """)
    for target, words in {
        "locked": "not cached: constant LOCK",
        "memo": "constant MEMO changed while it ran",
        "counted": "constant COUNT changed while it ran",
        "generator": "cannot be stored",
        "reader": "not cached: its input generator cannot be stored",
    }.items():
        for _ in range(2):
            report = project.report(target)
            assert not report.cached
            assert words in report.reason
    assert project.run("reader").values["reader"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "code",
    [
        "import importlib\ndef step(*, name='plug'):\n    return importlib.import_module(name).value()",
        "from importlib import import_module as get\ndef step(*, name='plug'):\n    return get(name).value()",
        "def step(*, name='plug'):\n    import importlib as il\n    return il.import_module(name).value()",
        "def step(*, name='plug'):\n    return __import__(name).value()",
        "import plug\ndef step(*, name='value'):\n    return getattr(plug, name)()",
    ],
)
def test_code_that_can_reach_anything_depends_on_the_whole_project(project: Any, code: str) -> None:
    project.write(code)
    project.write("def value():\n    return 1", "plug.py")
    assert project.run("step").values["step"] == 1
    assert project.report("step").cached
    assert project.edit("return 1", "return 2", "plug.py").run("step").values["step"] == 2


def test_what_may_change_unseen_is_a_warning(project: Any) -> None:
    project.write("""
        import os, random, time
        import datetime as dt
        import numpy as np
        from random import random as chance
        def step(input):
            started = time.perf_counter()
            return os.environ.get("X"), dt.datetime.now(), chance(), np.random.rand(), _file(), input
        def _file():
            with open(os.devnull) as file:
                return file.read()
        def seeded(*, seed=0):
            return np.random.default_rng(seed).normal()
    """)
    warnings = project.report("step", {"input": Input(1, "v1")}).warnings
    said = " ".join(warnings)
    for name in ("os.environ", "datetime.datetime.now", "random.Random.random", "numpy.random.rand", "_file uses open"):
        assert name in said
    assert "input" not in said
    assert "perf_counter" not in said
    assert project.report("step", {"input": Input(1, "v1")}).warnings == warnings, "also when cached"
    assert project.report("seeded", {"input": Input(1, "v1")}).warnings == ()


def test_a_text_of_the_same_size_and_second_is_not_taken_for_its_compiled_predecessor(project: Any) -> None:
    for number in (1, 2):
        path = project.root / "helper.py"
        path.write_text(f"def value():\n    return {number}\n")
        os.utime(path, (1_000_000_000, 1_000_000_000))
        project.write("import helper\ndef step():\n    return helper.value()")
        assert project.run("step").values["step"] == number


def test_two_checkouts_with_the_same_names_do_not_mix(tmp_path: Path) -> None:
    pipelines = []
    for number in (1, 2):
        root = tmp_path / str(number)
        (root / "parts").mkdir(parents=True)
        (root / "pipeline.py").write_text(
            "import helper\nfrom parts.inner import inner\n"
            "def step():\n    import lazy\n    return helper.value(), inner(), lazy.value()\n"
        )
        (root / "helper.py").write_text(f"def value():\n    return {number}\n")
        (root / "lazy.py").write_text("import helper\ndef value():\n    return helper.value() * 10\n")
        (root / "parts" / "inner.py").write_text(f"def inner():\n    return {number}\n")
        pipelines.append(Pipeline(load_module(root), ()))
    assert "helper" not in sys.modules
    cache = Cache(tmp_path / "cache")
    values = [each.run("step", {}, {}, cache, "e").values["step"] for each in (*pipelines, *pipelines)]
    assert values == [(1, 1, 10), (2, 2, 20), (1, 1, 10), (2, 2, 20)]
    assert "helper" not in sys.modules and "lazy" not in sys.modules
    assert not any(str(tmp_path) in place for place in sys.path)
