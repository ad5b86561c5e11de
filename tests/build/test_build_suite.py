from __future__ import annotations

from pathlib import Path

import pytest

from acceptance.support import PYTEST
from orrery.build.environment import Environment, lock
from orrery.build.suite import PROGRAM, TestReport, run_tests
from orrery.workers.contained import Limits
from orrery.workers.launch import LINUX
from orrery.workers.warm import WarmStarts

LIMITS = Limits(wall_seconds=30)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("environment")
    return lock(folder, folder / "environments")


def checked(place: Path, environment: Environment, limits: Limits = LIMITS, **files: str) -> TestReport:
    (place / "tests").mkdir(parents=True)
    (place / "pipeline.py").write_text("def double(x):\n    return 2 * x\n")
    if not (place / "pytest.ini").exists():
        (place / "pytest.ini").write_text(PYTEST)
    for name, text in files.items():
        (place / "tests" / f"{name}.py").write_text(text)
    return run_tests(place, environment, limits, "staging", log=place.parent / f"{place.name}.log")


def test_counts(tmp_path: Path, environment: Environment) -> None:
    code = """
import os, pytest
from pipeline import double
def test_good(): assert double(2) == 4
def test_where(): assert os.environ["ORRERY_STEP_ENVIRONMENT"] == "staging"
def test_bad(): assert double(2) == 5
@pytest.fixture
def broken(): raise OSError("no such table")
def test_error(broken): pass
def test_skipped(): pytest.skip("not here")
"""
    report = checked(tmp_path / "p", environment, test_it=code)
    assert (report.passed, report.failed, report.errors, report.skipped) == (2, 1, 1, 1)
    assert not report.ok
    assert report.reason.startswith("2 of 5 tests failed: tests.test_it.test_bad (assert 4 == 5")
    assert "tests.test_it.test_error (OSError: no such table)" in report.reason
    assert "test_bad" in report.output
    assert "test_bad" in (tmp_path / "p.log").read_text()


def test_all_pass_and_the_checkout_stays_clean(tmp_path: Path, environment: Environment) -> None:
    code = "def test_write():\n    open('left', 'w').write('x')\n    assert open('pipeline.py').read()\n"
    report = checked(tmp_path, environment, test_it=code)
    assert (report.ok, report.passed, report.reason) == (True, 1, "")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "pipeline.py",
        "pytest.ini",
        "tests",
        "tests/test_it.py",
    ]


@pytest.mark.skipif(not LINUX, reason="not run: programs are forked on Linux only")
def test_forked_tests_find_what_executed_ones_find(tmp_path: Path, environment: Environment) -> None:
    """All but the time that imports take: their own folder for files, their order, and plugins that pytest reads."""
    code = """
import sys
WARM = "numpy" in sys.modules
import os, tempfile, anyio, numpy
def test_forked(): assert WARM
def test_where(): assert tempfile.gettempdir() == os.environ["TMPDIR"]
def test_bytes(): assert sys.dont_write_bytecode
def test_plugin(): assert type(anyio.__spec__.loader).__module__.startswith("_pytest")
def test_bad():
    four = 4
    assert four == 5
"""
    (tmp_path / "p" / "tests").mkdir(parents=True)
    (tmp_path / "p" / "tests" / "test_it.py").write_text(code)
    warm = WarmStarts(tmp_path / "imported", (PROGRAM,))
    place = warm.place(str(environment.python))
    place.mkdir(parents=True)
    (place / f"{PROGRAM}.json").write_text('["numpy", "tempfile", "anyio"]')
    try:
        report = run_tests(tmp_path / "p", environment, LIMITS, warm=warm)
    finally:
        warm.close()
    assert (report.passed, report.failed) == (4, 1), report.output
    assert "test_bad (assert 4 == 5" in report.reason
    cold = run_tests(tmp_path / "p", environment, LIMITS)
    assert "test_forked" in cold.reason and (cold.passed, cold.failed) == (3, 2)


def test_no_tests(tmp_path: Path, environment: Environment) -> None:
    report = run_tests(tmp_path, environment)
    assert (report.ok, report.passed, report.reason) == (True, 0, "the project has no tests")


@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        ("def helper(): pass", LIMITS, "the project has a folder tests/, but pytest found no test in it"),
        (
            "def test_x(:\n    pass\n",
            LIMITS,
            "1 of 1 tests failed: tests.test_it (SyntaxError: invalid syntax)",
        ),
        (
            "import nosuchthing\n",
            LIMITS,
            "1 of 1 tests failed: tests.test_it (ModuleNotFoundError: No module named 'nosuchthing')",
        ),
        (
            "import time\ndef test_x(): time.sleep(60)",
            Limits(wall_seconds=2),
            "the test run did not end within 2 s",
        ),
        (
            "def test_x():\n    import time\n    x = bytearray(400 << 20)\n    time.sleep(20)",
            Limits(memory_bytes=256 << 20, wall_seconds=30),
            "the test run used more than 256.0 MB of memory",
        ),
        ("import os\ndef test_x(): os._exit(3)", LIMITS, "the test run ended itself by os._exit(3)"),
        ("import os\ndef test_x(): os._exit(0)", LIMITS, "the test run ended itself by os._exit(0)"),
        (
            "import os\ndef test_x(): os.kill(os.getpid(), 11)",
            LIMITS,
            "the test run was killed by signal 11 (segmentation fault)",
        ),
    ],
    ids=["nothing", "syntax", "import", "hang", "memory", "exit 3", "exit 0", "crash"],
)
def test_what_goes_wrong_is_named(
    tmp_path: Path, environment: Environment, code: str, limits: Limits, reason: str
) -> None:
    report = checked(tmp_path, environment, limits, test_it=code)
    assert not report.ok
    assert report.reason.startswith(reason)


def test_a_conftest_that_fails(tmp_path: Path, environment: Environment) -> None:
    report = checked(tmp_path, environment, conftest="import nosuchthing", test_it="def test_x(): pass")
    assert report.reason == "pytest could not start: ModuleNotFoundError: No module named 'nosuchthing'"


def test_the_projects_own_configuration_counts(tmp_path: Path, environment: Environment) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    report = checked(tmp_path, environment, test_it="def test_x(): pass")
    assert report.reason.startswith("pytest could not start: ") and "--no-such-option" in report.reason
