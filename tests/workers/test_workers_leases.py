from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orrery.timeline.schema import upgrade
from orrery.timeline.store import connect
from orrery.workers.leases import Leases, leases


def ready(url: str) -> sa.Engine:
    engine = connect(url)
    upgrade(engine)
    return engine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = os.environ.get("ORRERY_STEP_POSTGRESQL") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))), ""
    )
    if not (folder and shutil.which("initdb", path=folder)):
        pytest.skip("not run: no PostgreSQL server on this machine")
    if os.getuid() == 0 and not shutil.which("runuser"):
        pytest.skip("not run: PostgreSQL does not start as root, and runuser is missing")
    place = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pgXXXXXX"], text=True).strip())
    who = []
    if os.getuid() == 0:
        shutil.chown(place, "nobody")
        who = ["runuser", "-u", "nobody", "--"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True, "cwd": place}
    subprocess.run([*who, f"{folder}/initdb", "-A", "trust", "--no-sync", "-U", "orrery", f"{place}/data"], **quiet)
    options = f"-c listen_addresses= -k {place} -c fsync=off -c max_connections=60"
    subprocess.run([*who, f"{folder}/pg_ctl", "-w", "-D", f"{place}/data", "-o", options, "start"], **quiet)
    try:
        yield f"postgresql://orrery@/postgres?host={place}"
    finally:
        subprocess.run([*who, f"{folder}/pg_ctl", "-w", "-D", f"{place}/data", "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(place)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    address = f"sqlite:///{tmp_path / 'o.db'}" if request.param == "sqlite" else request.getfixturevalue("server")
    engine = ready(address)
    with engine.begin() as connection:
        connection.execute(leases.delete())
    engine.dispose()
    yield address


@pytest.fixture
def table(url: str) -> Iterator[Leases]:
    engine = connect(url)
    yield Leases(engine)
    engine.dispose()


def test_the_first_free_action_is_taken(table: Leases) -> None:
    assert table.take([], "a") is None
    assert table.take(["x", "y"], "a") == "x"
    assert table.take(["x", "y"], "b") == "y"
    assert table.take(["x", "y"], "c") is None
    assert table.take(["x"], "a") is None, "not even by its own holder"
    assert [(lease.action, lease.worker, lease.attempts) for lease in table.held()] == [("x", "a", 1), ("y", "b", 1)]


def test_release_keeps_the_count(table: Leases) -> None:
    assert table.attempts("x") == 0
    for attempt in (1, 2, 3):
        assert table.take(["x"], "a") == "x"
        assert table.attempts("x") == attempt
        assert not table.release("x", "somebody else")
        assert table.release("x", "a")
    assert not table.release("x", "a")
    assert table.held() == []


def test_a_lease_that_ran_out_is_taken_over(table: Leases) -> None:
    assert table.take(["x"], "dead", seconds=0.2) == "x"
    assert table.take(["x"], "b") is None
    time.sleep(0.25)
    assert table.take(["x"], "b") == "x"
    assert not table.renew("x", "dead")
    assert not table.release("x", "dead")
    assert table.attempts("x") == 2
    assert [lease.worker for lease in table.held()] == ["b"]


def test_renewing_holds_it(table: Leases) -> None:
    table.take(["x"], "a", seconds=0.3)
    for _ in range(3):
        time.sleep(0.15)
        assert table.renew("x", "a", seconds=0.3)
    assert table.take(["x"], "b") is None
    time.sleep(0.35)
    assert not table.renew("x", "a"), "it ran out, so another may have it by now"


def test_a_new_worker_frees_what_its_predecessor_held(table: Leases) -> None:
    table.take(["x"], "a")
    table.take(["y"], "a")
    table.take(["z"], "b")
    assert table.release_all("a") == 2
    assert [lease.action for lease in table.held()] == ["z"]
    assert table.take(["x"], "a") == "x"


ACTIONS = [f"action-{n}" for n in range(6)]


def work(url: str, name: str, rounds: int, folder: Path) -> None:
    """Take, prove by an exclusive file that nobody else is there, let go."""
    engine = connect(url)
    table = Leases(engine)
    for _ in range(rounds):
        if (action := table.take(ACTIONS, name)) is None:
            continue
        mine = folder / action
        try:
            os.close(os.open(mine, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            (folder / "two-holders").touch()
            return
        with (folder / f"count-{name}").open("a") as count:
            count.write("x")
        mine.unlink()
        table.release(action, name)
    engine.dispose()


def test_never_two_holders_among_processes_and_threads(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "proof"
    folder.mkdir()
    imports = "from __future__ import annotations\nimport os, sys\nfrom pathlib import Path\n"
    imports += "from orrery.timeline.store import connect\nfrom orrery.workers.leases import Leases\n"
    source = f"{imports}ACTIONS = {ACTIONS}\n{inspect.getsource(work)}\n"
    source += "work(sys.argv[1], sys.argv[2], 25, Path(sys.argv[3]))"
    processes = [subprocess.Popen([sys.executable, "-c", source, url, f"p{n}", str(folder)]) for n in range(2)]
    threads = [threading.Thread(target=work, args=(url, f"t{n}", 25, folder)) for n in range(5)]
    while any(process.poll() is None for process in processes) and not list(folder.glob("count-p*")):
        time.sleep(0.01)  # the processes take a second to start, and it shall be a race
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0]
    assert not (folder / "two-holders").exists()
    taken = sum(len(path.read_text()) for path in folder.glob("count-*"))
    engine = connect(url)
    table = Leases(engine)
    assert taken == sum(table.attempts(action) for action in ACTIONS) > 50
    assert table.held() == []
    engine.dispose()


def test_a_race_for_one_action_has_one_winner(url: str) -> None:
    engine = connect(url)
    table = Leases(engine)
    table.take(["x"], "dead", seconds=0.01)
    time.sleep(0.02)
    start = threading.Barrier(12)
    winners = []

    def race(name: str) -> None:
        start.wait()
        if table.take(["x"], name):
            winners.append(name)

    threads = [threading.Thread(target=race, args=(f"w{n}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert table.attempts("x") == 2
    engine.dispose()


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "release", "restart"]), st.sampled_from("abc"), st.sampled_from("xyz")),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_leases_agree_with_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str]]
) -> None:
    engine = ready(f"sqlite:///{tmp_path_factory.mktemp('model') / 'o.db'}")
    table, held, counted = Leases(engine), {}, dict.fromkeys("xyz", 0)
    for what, worker, action in steps:
        if what == "take":
            wanted = [action, "x", "y"]
            expected = next((name for name in wanted if name not in held), None)
            assert table.take(wanted, worker) == expected
            if expected:
                held[expected] = worker
                counted[expected] += 1
        elif what == "release":
            assert table.release(action, worker) == (held.get(action) == worker)
            held = {name: who for name, who in held.items() if (name, who) != (action, worker)}
        else:
            assert table.release_all(worker) == sum(who == worker for who in held.values())
            held = {name: who for name, who in held.items() if who != worker}
        assert {lease.action: lease.worker for lease in table.held()} == held
    assert {action: table.attempts(action) for action in "xyz"} == counted
    engine.dispose()
