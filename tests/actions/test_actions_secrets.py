"""Secrets reach the actions that the project file names, and nobody else; what prints them prints nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.support import PIPELINE, named
from actions.worked import Worked
from orrery.settings import Settings

VALUE = "the moons of Jupiter are four"
BY = {"why": "For the test.", "actor": "ann"}
TELLS = PIPELINE.replace(
    "import numpy as np",
    'import base64, os\nimport numpy as np\nSEEN = os.environ.get("SECRET_WAREHOUSE", "nothing")',
).replace(
    "    x = np",
    "    print(SEEN, base64.b64encode(SEEN.encode()).decode())\n    raise ValueError(SEEN[:4] + SEEN)\n    x = np",
)
ASKS = """
import os
def test_it():
    print(os.environ.get("SECRET_WAREHOUSE", "nothing"))
    assert os.environ.get("SECRET_WAREHOUSE") == "x", os.environ.get("SECRET_WAREHOUSE", "nothing was given")
"""


@pytest.fixture
def worked(home: Settings, tmp_path: Path) -> Iterator[Worked]:
    made = Worked(home, tmp_path)
    yield made
    made.close()


def test_a_training_that_tells_its_secret_tells_nothing(worked: Worked) -> None:
    worked.orrery.set_secret("tides", "warehouse", VALUE, **BY)
    worked.push(more='[secrets]\nwarehouse = "training"\n', pipeline=TELLS)
    (failed,) = worked.work("failed", "trained")
    assert failed.kind == "failed" and failed.data["stage"] == "training"
    assert "ValueError: the [secret]" in failed.data["error"]  # it had the secret, and said it
    assert VALUE not in worked.told()
    written = worked.written()
    assert VALUE.encode() not in written and base64.b64encode(VALUE.encode()) not in written
    logs = [path.read_text() for path in worked.orrery.settings.home.rglob("log.txt")]
    assert any("[secret] [secret]" in log for log in logs)


def test_what_is_no_secret_is_told(worked: Worked) -> None:
    worked.orrery.set_secret("other", "warehouse", VALUE, **BY)  # another project's
    worked.push(pipeline=TELLS.replace('os.environ.get("SECRET_WAREHOUSE", "nothing")', repr(VALUE)))
    (failed,) = worked.work("failed", "trained")
    assert f"ValueError: the {VALUE}" in failed.data["error"]
    assert VALUE.encode() in worked.written()


def test_only_the_actions_that_are_named_get_it(worked: Worked) -> None:
    worked.orrery.set_secret("tides", "warehouse", VALUE, **BY)
    worked.push(more='[secrets]\nwarehouse = "training"\n', tests=ASKS)
    (failed,) = worked.work("failed", "tested")
    assert failed.data["stage"] == "tests" and "nothing was given" in failed.data["error"]


def test_tests_get_it_and_tell_nothing(worked: Worked) -> None:
    worked.orrery.set_secret("tides", "warehouse", VALUE, **BY)
    worked.push(more='[secrets]\nwarehouse = ["tests"]\n', tests=ASKS)
    (failed,) = worked.work("failed", "tested")
    assert "[secret]" in failed.data["error"] and "nothing was given" not in failed.data["error"]
    assert VALUE not in worked.told() and VALUE.encode() not in worked.written()


def test_without_it_nothing_runs(worked: Worked) -> None:
    mark = worked.folder / "ran"
    worked.orrery.set_secret("other", "warehouse", VALUE, **BY)
    worked.orrery.set_secret("tides", "warehouse", VALUE, **BY)
    worked.orrery.remove_secret("tides", "warehouse", **BY)
    touching = f"open({str(mark)!r}, 'w')\ndef test_it(): pass\n"
    worked.push(more='[secrets]\nwarehouse = ["tests", "training"]\n', tests=touching)
    (failed,) = worked.work("failed", "tested")
    assert failed.data["error"].startswith("The secret warehouse, which orrery.toml gives to tests, is not set.")
    assert "orrery secret set tides warehouse" in failed.data["error"] and not mark.exists()


def test_what_a_build_installed_with_a_secret_is_for_that_project_alone(worked: Worked) -> None:
    places = []
    for project, more in (("tides", '[secrets]\nindex = "build"\n'), ("other", ""), ("third", "")):
        worked.orrery.set_secret(project, "index", VALUE, **BY)
        worked.push(project, toml=named("tides", dataset="none"), more=more)  # built is enough: it is never trained
        (built,) = worked.work("built", "failed", project=project)
        places.append(built.data["python"])
    assert places[0] != places[1] == places[2]
