"""The project's own tests, run in its environment, in processes that can only harm themselves."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

from orrery.access.outgoing import elsewhere
from orrery.build.environment import Environment
from orrery.pipeline.redaction import Redaction
from orrery.workers.contained import Finished, Limits, run
from orrery.workers.walls import Walling, environment_of
from orrery.workers.warm import WarmStarts
from orrery.workers.way_out import WayOut

LIMITS = Limits(wall_seconds=900)
PROGRAM = "orrery.build.pytest_run"
"""Module that runs the tests."""
_LEFT_BEHIND = shutil.ignore_patterns(".git", "__pycache__", ".venv", ".pytest_cache", "node_modules")
_CONFIGURATION = ("pytest.ini", ".pytest.ini", "pytest.toml", "pyproject.toml", "tox.ini", "setup.cfg")


@dataclass(frozen=True)
class TestReport:
    """How the project's tests went.

    Parameters
    ----------
    passed, failed, errors, skipped : how many; an error is a test that could not be run, or a file not read.
    seconds : by the clock.
    output : the end of what was printed.
    ok : whether the version may go on.
    reason : why not, as a sentence without its full stop; also said where there are no tests.
    """

    __test__: ClassVar[bool] = False  # not a test itself, whatever pytest thinks of its name

    passed: int
    failed: int
    errors: int
    skipped: int
    seconds: float
    output: str
    ok: bool
    reason: str


def run_tests(
    checkout: Path,
    environment: Environment,
    limits: Limits = LIMITS,
    where: str = "development",
    log: Path | None = None,
    warm: WarmStarts | None = None,
    secrets: Mapping[str, str] | None = None,
    redaction: Redaction | None = None,
    walling: Walling | None = None,
    network: bool = False,
) -> TestReport:
    """Run ``tests/`` of a checkout with pytest, in a throw-away copy.

    Parameters
    ----------
    checkout : folder of the project; it is not written to.
    environment : of :func:`orrery.build.environment.lock`.
    limits : what the tests may use.
    where : environment that the version enters; the tests see it as ``ORRERY_STEP_ENVIRONMENT``.
    log : file that gets the output.
    warm : forks pytest from a process that has imported what the tests need, where it can.
    secrets : variables that only the tests get.
    redaction : what is secret, and in no output.
    walling : puts walls around the tests.
    network : whether they reach other machines all the same.
    """
    if not (checkout / "tests").is_dir():
        return TestReport(0, 0, 0, 0, 0.0, "", True, "the project has no tests")
    with tempfile.TemporaryDirectory(prefix="orrery-tests-") as scratch:
        copy, junit = Path(scratch, "project"), Path(scratch, "junit.xml")
        shutil.copytree(checkout, copy, symlinks=True, ignore=_LEFT_BEHIND)
        argv = [str(environment.python), "-m", PROGRAM, "tests", "-p", "no:cacheprovider", "--color=no", "--tb=short"]
        argv += [f"--rootdir={copy}", f"--junitxml={junit}"]
        if not any((copy / name).exists() for name in _CONFIGURATION):
            argv += ["-c", os.devnull]  # else pytest would look for one in the folders above
        walls = None
        if walling is not None:
            out = WayOut(elsewhere) if network else None
            walls = walling.around([environment_of(environment.python)], [scratch], way_out=out)
        finished = run(
            argv,
            cwd=copy,
            env={"PYTHONHASHSEED": "0", "ORRERY_STEP_ENVIRONMENT": where, "TMPDIR": scratch, **(secrets or {})},
            limits=limits,
            log=log,
            expects=junit,
            warm=warm,
            redaction=redaction,
            walls=walls,
        )
        return _report(finished, junit, redaction or Redaction())


def _report(finished: Finished, junit: Path, redaction: Redaction) -> TestReport:
    try:
        # No entity from outside is read, and expat refuses those that grow without end.
        root = ElementTree.fromstring(redaction.whole(junit.read_bytes()))  # nosec B314
        cases = list(root.iter("testcase"))
    except (FileNotFoundError, ElementTree.ParseError):
        return TestReport(0, 0, 0, 0, finished.seconds, finished.tail, False, _unfinished(finished))
    bad = [(case, case.find("failure"), case.find("error")) for case in cases]
    failed = sum(failure is not None for _, failure, _ in bad)
    errors = sum(error is not None and failure is None for _, failure, error in bad)
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - failed - errors - skipped
    reason = ""
    if finished.code == 5:
        reason = "the project has a folder tests/, but pytest found no test in it"
    elif failed or errors:
        where = [_explain(case, found) for case, *both in bad if (found := _first(both)) is not None]
        reason = f"{failed + errors} of {len(cases)} tests failed: " + "; ".join(where[:3])
        reason += f"; and {len(where) - 3} more" if len(where) > 3 else ""
    elif finished.code != 0:
        reason = f"the tests were not finished: pytest {finished.reason}"
    return TestReport(passed, failed, errors, skipped, finished.seconds, finished.tail, finished.code == 0, reason)


def _unfinished(finished: Finished) -> str:
    """Say why there is no report."""
    if finished.code == 4 and (said := re.search(r"(?m)^(?:.*: error: |ERROR: (?!usage)|E\s+)(.+)$", finished.tail)):
        return f"pytest could not start: {said[1].strip()[:300]}"
    return f"the test run {finished.reason or 'left no report'}"


def _first(found: list[ElementTree.Element | None]) -> ElementTree.Element | None:
    return next((each for each in found if each is not None), None)


def _explain(case: ElementTree.Element, found: ElementTree.Element) -> str:
    """Say which test, and the exception in one line."""
    name = ".".join(part for part in (case.get("classname", ""), case.get("name", "")) if part)
    lines = re.findall(r"(?m)^E\s+(.+)$", found.text or "")
    # A file that cannot be read shows its source first and the exception last; a failed test, the exception first.
    collecting = found.get("message") == "collection failure"
    said = (lines[-1] if collecting else lines[0]) if lines else found.get("message", "")
    return f"{name} ({said.strip()[:200]})"
