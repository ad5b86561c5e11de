"""A model in a process of its own: the same answers, and its failures stay its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery.errors import ProjectFailed
from orrery.pipeline.client import ModelProcess
from orrery.pipeline.predictor import Predictor
from orrery.pipeline.rows import RowRefused
from orrery.workers.contained import NONE, Contained, Limits, spawn

FRAME = pl.DataFrame({"a": [x / 7 for x in range(60)], "s": ["u", "v"] * 30, "y": [x / 7 for x in range(60)]})
MODEL = """
    import os, sys, time

    class Model:
        def predict(self, given):
            command = given["s"][0]
            if command == "exit":
                os._exit(7)
            if command == "kill":
                os.kill(os.getpid(), 9)
            if command == "eat":
                return len(bytearray(1 << 30)) * given["a"].to_numpy() ** 0
            if command == "hang":
                time.sleep(60)
            if command == "fail":
                raise ValueError("no such city")
            if command == "print":
                print("printed by Python")
                os.system("echo printed by a program")
                os.write(1, b"printed by a library")
                sys.__stdout__.write("printed past sys.stdout")
                sys.stdin.read()
            return given["a"].to_numpy() ** 0.5 / 3

    def features(rows):
        return rows.select("a", "s")

    def model(features, y):
        return Model()
"""


def command(artifact: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "orrery.pipeline.host", str(artifact), *more]


def process_of(argv: list[str], limits: Limits = NONE, **timeouts: float) -> ModelProcess:
    """Return a model process as gates start it."""

    def launch(printed: IO[bytes]) -> Contained:
        return spawn(argv, cwd=Path("/"), limits=limits, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed)

    return ModelProcess(launch, **timeouts)


def one(text: str) -> pl.DataFrame:
    return pl.DataFrame({"a": [4.0], "s": [text]})


@pytest.fixture
def artifact(trainer: Any) -> Path:
    version: Path = trainer.version(MODEL, FRAME, "regression")
    return version


def test_the_process_answers_as_the_training_did_to_the_byte(artifact: Path) -> None:
    untouched = pl.read_parquet(artifact.parent / "holdout.parquet")
    expected = np.load(artifact.parent / "probe_output.npy")
    with process_of(command(artifact, "--which", "probe")) as process:
        assert process.columns == {"a": "Float64", "s": "String"}
        assert process.predict(untouched).tobytes() == expected.tobytes()
        singly = np.vstack([process.predict(untouched[i]) for i in range(untouched.height)])
        assert singly.tobytes() == expected.tobytes()
        assert process.predict(untouched.clear()).shape == (0, 1)
    assert Predictor.load(artifact, "probe").predict(untouched).tobytes() == expected.tobytes()


def test_what_the_model_prints_does_not_reach_the_channel(artifact: Path) -> None:
    with process_of(command(artifact)) as process:
        assert process.predict(one("print")).tolist() == [[2 / 3]]
        assert process.predict(one("u")).tolist() == [[2 / 3]]


def test_refused_rows_and_failures_leave_the_process_alive(artifact: Path) -> None:
    with process_of(command(artifact)) as process:
        with pytest.raises(RowRefused) as caught:
            process.predict(pl.DataFrame({"a": ["x"], "s": ["u"]}))
        assert (caught.value.column, caught.value.row) == ("a", 0)
        with pytest.raises(ProjectFailed, match=r"ValueError: no such city \(pipeline.py, line"):
            process.predict(one("fail"))
        with pytest.raises(ProjectFailed, match="no finite number for 1 of 2 rows, first for row 1"):
            process.predict(pl.DataFrame({"a": [1.0, None], "s": ["u", "u"]}))
        assert process.predict(pl.DataFrame({"a": [4], "s": ["u"], "x": [0]})).tolist() == [[2 / 3]]
        assert (process.missing, process.extra) == ((), ("x",))


@pytest.mark.parametrize(
    ("how", "said"),
    [("exit", "ended with exit code 7"), ("kill", r"was killed by signal 9 \(killed\)"), ("hang", "within 0.5 s")],
)
def test_the_death_of_the_process_is_told(how: str, said: str, artifact: Path) -> None:
    with process_of(command(artifact), timeout=0.5) as process:
        with pytest.raises(ProjectFailed, match=said):
            process.predict(one(how))
        with pytest.raises(ProjectFailed, match="has ended"):
            process.predict(one("u"))


def test_a_process_that_eats_memory_is_ended_and_that_is_told(artifact: Path) -> None:
    little = Limits(memory_bytes=600 << 20, wall_seconds=None)
    with process_of(command(artifact), little) as process:
        assert process.predict(one("u")).tolist() == [[2 / 3]]
        with pytest.raises(ProjectFailed, match=r"used more than 600.0 MB of memory instead of answering"):
            process.predict(one("eat"))
    with process_of(command(artifact)) as unlimited:  # the control
        assert unlimited.predict(one("eat")).tolist() == [[float(1 << 30)]]


def test_a_version_that_cannot_be_loaded_says_why(artifact: Path) -> None:
    (artifact / "code" / "pipeline.py").write_text("import no_such_library\n")
    with pytest.raises(ProjectFailed, match="No module named 'no_such_library'"):
        process_of(command(artifact)).start()
    with pytest.raises(ProjectFailed, match="no version"):
        process_of(command(artifact / "nowhere")).start()
    with pytest.raises(ProjectFailed, match=r"exit code 3 instead of answering\. It printed last: gone"):
        process_of([sys.executable, "-c", "import sys; print('gone', file=sys.stderr); sys.exit(3)"]).start()


class Raw:
    """The protocol as the inference server speaks it."""

    def __init__(self, artifact: Path) -> None:
        self.process = subprocess.Popen(command(artifact), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        size = int.from_bytes(self.process.stdout.read(4), "little")
        message: dict[str, Any] = msgspec.msgpack.decode(self.process.stdout.read(size))
        return message

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        body = msgspec.msgpack.encode(request)
        self.process.stdin.write(len(body).to_bytes(4, "little") + body)
        self.process.stdin.flush()
        return self.read()


def test_the_protocol(artifact: Path) -> None:
    raw = Raw(artifact)
    ready = raw.read()
    assert ready["ready"] is True and ready["seconds"] > 0 and list(ready["columns"]) == ["a", "s"]
    answer = raw.ask(id=1, op="predict", columns={"a": [4, 9.0], "z": [1, 2]}, n=2)
    assert answer.pop("cpu") >= 0
    assert answer == {"id": 1, "output": [[2 / 3], [1.0]], "width": 1, "missing": ["s"], "extra": ["z"]}
    refused = raw.ask(id=2, op="predict", columns={"a": [4, "12"]}, n=2)
    assert refused["id"] == 2
    assert refused["error"]["kind"] == "rows"
    assert (refused["error"]["column"], refused["error"]["row"]) == ("a", 1)
    assert raw.ask(id=3, op="dance")["error"]["kind"] == "rows"
    assert "no Arrow IPC stream" in raw.ask(id=3, op="predict", arrow=b"nonsense")["error"]["what"]
    assert "no list of values" in raw.ask(id=3, op="predict", columns={"a": 4}, n=1)["error"]["what"]
    assert raw.ask(id=4, op="predict", columns={"a": [1.0], "s": ["fail"]}, n=1)["error"]["kind"] == "project"
    for number in range(200):
        assert raw.ask(id=number, op="predict", columns={"a": [1.0], "s": ["u"]}, n=1)["output"] == [[1 / 3]]
    assert raw.process.stdin is not None
    raw.process.stdin.close()
    assert raw.process.wait(timeout=10) == 0
    assert raw.process.stdout is not None
    raw.process.stdout.close()


def test_the_process_ends_with_the_one_that_started_it(artifact: Path) -> None:
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from pathlib import Path; from subprocess import PIPE\n"
            "from orrery.pipeline.client import ModelProcess; from orrery.workers.contained import spawn\n"
            f"argv = {command(artifact)!r}\n"
            "p = ModelProcess(lambda f: spawn(argv, cwd=Path('/'), stdin=PIPE, stdout=PIPE, stderr=f))\n"
            "p.start(); print(p._process.pid, flush=True)\n"
            "import time; time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    child = int(starter.stdout.readline())
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    deadline = time.monotonic() + 10
    while _alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_it_times_requests_as_they_are_answered_when_served(trainer: Any) -> None:
    compiled = """
        from sklearn.linear_model import LinearRegression

        def model(rows, y):
            return LinearRegression().fit(rows, y)
    """
    numbers = pl.DataFrame(
        {"a": [x / 7 for x in range(60)], "b": [x % 5 for x in range(60)], "y": [x / 7 for x in range(60)]}
    )
    version = trainer.version(compiled, numbers, "regression")
    own = trainer.version(MODEL, FRAME, "regression")
    with process_of(command(version)) as process:
        seconds, by_graph = process.time({"a": [4.0], "b": [3]}, 1)
        assert seconds > 0 and by_graph
        assert process.time({"a": [4.0, 1.5], "b": [3, 2]}, 2)[1]
        with pytest.raises(RowRefused):
            process.time({"a": ["four"], "b": [3]}, 1)
        process.load(own)
        assert not process.time({"a": [4.0], "s": ["u"]}, 1)[1]
        with pytest.raises(ProjectFailed, match="no such city"):
            process.time({"a": [4.0], "s": ["fail"]}, 1)
        process.load(version)
        assert process.time({"a": [4.0], "b": [3]}, 1)[1]
