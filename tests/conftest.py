"""What all tests share: a home of their own, a timeline in it, and a PostgreSQL server of their own."""

from __future__ import annotations

import getpass
import glob
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from orrery import settings as orrery_settings
from orrery.settings import Settings
from orrery.timeline import schema
from orrery.timeline.clock import SystemClock
from orrery.timeline.store import Timeline, connect

for _name in ("connect", "read", "write", "pool"):
    # Several tests run at once: an answer may take longer than the five seconds that httpx waits where nobody says.
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _name, 60.0)

STAGES = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--require-stage``: what is declared must run, and is not skipped in silence."""
    help_text = "marker of which at least one test must run, and none be skipped as `not run: ...`; may be repeated"
    parser.addoption("--require-stage", action="append", default=[], metavar="MARKER", help=help_text)


def pytest_configure(config: pytest.Config) -> None:
    """Count, for each stage that must run, the tests that did."""
    config.stash[STAGES] = dict.fromkeys(config.getoption("--require-stage", default=[]), 0)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Counting(config.stash[STAGES]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Turn the skip of a stage that must run into a failure."""
    report: Any = yield
    for stage in [name for name in item.config.stash[STAGES] if item.get_closest_marker(name)]:
        if report.skipped and "not run:" in str(report.longrepr):
            report.outcome, report.longrepr = "failed", f"The stage {stage} must run here: {report.longrepr[-1]}"
    return report


class Counting:
    """Counts the tests of stages, wherever they ran; a process that runs a part of the tests for another counts none.

    Parameters
    ----------
    stages : how many tests of each ran.
    """

    def __init__(self, stages: dict[str, int]) -> None:
        self.stages = stages

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one."""
        for stage in self.stages:
            if report.when == "call" and stage in report.keywords:
                self.stages[stage] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail where no test of a stage that must run did."""
        if not all(self.stages.values()) and session.exitstatus in (0, pytest.ExitCode.OK):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the stages that must run and did not."""
    for stage, count in config.stash[STAGES].items():
        if not count and not hasattr(config, "workerinput"):
            terminalreporter.write_line(f"The stage {stage} must run here, and no test of it did.", red=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a fresh orrery in a temporary folder; nothing of the caller's environment shines through."""
    for name in orrery_settings.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    return orrery_settings.load(home=folder)


@pytest.fixture
def timeline(home: Settings, request: pytest.FixtureRequest) -> Iterator[Timeline]:
    """An empty timeline: in SQLite, or where ``indirect`` parametrisation says so in PostgreSQL."""
    kind = getattr(request, "param", "sqlite")
    url = request.getfixturevalue("postgresql")() if kind == "postgresql" else home.database
    engine = connect(url)
    schema.upgrade(engine)
    yield Timeline(engine, SystemClock())
    engine.dispose()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Start a PostgreSQL server; gives a function that returns the URL of a fresh database."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    binaries = Path(found[-1]).parent if found else Path(shutil.which("initdb") or "/-").parent
    if not (binaries / "initdb").exists():
        pytest.skip("not run: no PostgreSQL server binaries (apt-get install postgresql)")
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="orrery-pg-"))
    if user:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        as_user: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **as_user)
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"

    data = str(folder / "data")
    options = f"-c listen_addresses= -k {folder} -c fsync=off -c max_connections=200"
    run(f"{binaries}/initdb", "-A", "trust", "-U", "orrery", "--no-sync", "-D", data)
    run(f"{binaries}/pg_ctl", "-w", "-D", data, "-l", str(folder / "log"), "-o", options, "start")
    numbers = itertools.count(1)

    def fresh() -> str:
        name = f"orrery_{next(numbers)}"
        server = sa.create_engine(_url(folder, "postgres"), isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        server.dispose()
        return _url(folder, name).replace("+psycopg", "")

    yield fresh
    run(f"{binaries}/pg_ctl", "-w", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


def _url(folder: Path, database: str) -> str:
    return f"postgresql+psycopg://orrery@/{database}?host={folder}"


def _unprivileged() -> str:
    """Return the user that the server runs as, empty where it is the present one: it refuses to run as root."""
    if os.geteuid() != 0:
        return ""
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    pytest.skip(f"not run: PostgreSQL refuses to run as {getpass.getuser()}, and there is no other user")
