"""Versions change, processes die, the control plane goes away: callers do not notice, or are told when to come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from orrery.data.journal import FOLDER, finished, segments


class Load:
    """Clients that ask without pause; leaving the block stops them."""

    def __init__(self, server: Any, clients: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[int] = Counter()
        self.said: set[str] = set()
        """What those were told who got no answer."""
        self.slowest = 0.0
        self.no_retry_after = 0
        self._stop = threading.Event()
        self._url = f"http://127.0.0.1:{server.port}"
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=20) as http:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    answer = http.post("/models/m/predict", json={"age": 40})
                except httpx.TransportError:
                    self.statuses[0] += 1
                    continue
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    self.versions[answer.json()["version"]] += 1
                else:
                    self.said.add(answer.text)
                    self.no_retry_after += "retry-after" not in answer.headers

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
def test_twenty_switches_under_load_lose_no_request(server: Any) -> None:
    server.start()
    server.assign(server.slot(1), server.slot(2, "shadow"))
    with Load(server, 4) as load:
        for number in range(2, 22):
            server.assign(server.slot(number), server.slot(number - 1, "guard"))
            assert server.predict().json()["version"] == number
    assert set(load.statuses) == {200}
    assert sum(load.statuses.values()) > 200
    assert len(load.versions) >= 20
    assert len(server.until(lambda: len(server.models()) == 2 and server.models())) == 2
    journal = Counter(row["_version"] for row in server.journal() if row["_role"] == "champion")
    assert sum(journal.values()) == sum(load.statuses.values()) + 20


def test_an_old_version_finishes_what_it_was_asked(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, plan={"sleep": 3.0}))
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(server.predict().json()["version"]))
    thread.start()
    time.sleep(0.3)
    server.assign(server.slot(2))
    with httpx.Client() as http:
        later = http.post(f"http://127.0.0.1:{server.port}/models/m/predict", json={"age": 1}).json()
    assert (later["version"], answers) == (2, [])
    thread.join()
    assert answers == [1]


def test_a_version_that_cannot_start_does_not_replace_the_old_one(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    report = server.assign(server.slot(2, plan={"fails": "the artifact is damaged"}))
    assert report["failed"] == {"production/m/2": "the artifact is damaged"}
    assert server.predict().json()["version"] == 1
    server.assign(server.slot(3))
    assert server.predict().json()["version"] == 3
    assert server.control.reports[-1]["failed"] == {}


def test_a_champion_that_cannot_start_is_said_at_once(server: Any) -> None:
    server.start()
    assert server.predict().status_code == 503
    assert server.http.get("/v2/health/ready").status_code == 503
    server.assign(server.slot(1, plan={"fails": "no memory"}))
    answer = server.predict()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "Version 1 of m cannot be started: no memory." in answer.json()["error"]
    assert server.http.get("/v2/models/m/ready").status_code == 503
    missing = server.assign(server.slot(2, python="/nowhere/python"))
    assert "/nowhere/python" in missing["failed"]["production/m/2"]


def test_a_killed_model_comes_back_under_load(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, plan={"start": 0.2}))
    with Load(server, 4) as load:
        for _ in range(3):
            before = load.statuses[200]
            server.until(lambda before=before: load.statuses[200] > before + 20)
            server.models()[0].kill()
            server.until(lambda: server.count("orrery_requests_total", code="200") and len(server.models()) == 1)
        before = load.statuses[200]
        server.until(lambda: load.statuses[200] > before + 20)
    assert set(load.statuses) <= {200, 503}, load.said
    assert load.no_retry_after == 0
    assert server.count("orrery_model_restarts_total") == 3


def test_a_request_that_kills_the_model_harms_only_itself(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    answer = server.predict({"do": "die"})
    assert answer.status_code == 500
    assert "ended twice" in answer.json()["error"]
    assert server.predict().status_code == 200
    again = server.predict({"do": "die"})
    assert (again.status_code, "not given them again" in again.json()["error"]) == (500, True)
    assert server.predict().status_code == 200
    assert server.count("orrery_model_restarts_total") == 2


def test_a_model_that_takes_no_more_rows_is_ended(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    first = server.models()[0].pid
    assert server.predict({"do": "deaf"}).status_code == 200
    assert server.predict().status_code == 200
    assert [process.pid for process in server.models()] != [first]
    assert server.count("orrery_requests_total", code="500") == 0


def test_a_model_that_hangs_is_ended(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, timeout=0.5))
    first = server.models()[0].pid
    began = time.monotonic()
    answer = server.predict({"do": "hang"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert 0.5 <= time.monotonic() - began < 2
    server.until(lambda: server.predict().status_code == 200)
    assert [process.pid for process in server.models()] != [first]


def test_an_environment_has_its_own_versions_and_shares_processes(server: Any) -> None:
    server.start()
    server.assign(
        server.slot(1),
        server.slot(2, environment="staging"),
        server.slot(1, environment="test"),
        server.slot(9, model="n"),
    )
    post = server.http.post
    assert post("/env/staging/models/m/predict", json={"age": 1}).json()["version"] == 2
    assert post("/env/test/models/m/predict", json={"age": 1}).json()["version"] == 1
    assert post("/models/n/predict", json={"age": 1}).json()["version"] == 9
    assert len(server.models()) == 3
    several = post("/invocations", json={"inputs": {"age": [1]}})
    assert (several.status_code, "2 models are served" in several.json()["message"]) == (404, True)
    assert post("/env/staging/invocations", json={"inputs": {"age": [1]}}).status_code == 200
    server.assign(server.slot(1))
    assert post("/env/staging/models/m/predict", json={"age": 1}).status_code == 404


def test_it_starts_and_serves_without_the_control_plane(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.control.close()
    time.sleep(0.5)
    assert server.predict().status_code == 200
    assert server.stop() == 0
    server.start()
    assert server.predict().json()["version"] == 1
    assert server.http.get("/v2/health/ready").status_code == 200


def test_a_damaged_assignment_file_is_fetched_anew(server: Any) -> None:
    (server.home / "serving").mkdir()
    (server.home / "serving" / "assignment.json").write_text("{")
    server.start()
    server.assign(server.slot(1))
    assert server.predict().status_code == 200
    server.control.assignment = {"seq": 99, "slots": [server.slot(2, "shadow")]}
    server.until(lambda: "0 champions" in (server.folder / "log").read_text())
    assert "0 champions" in server.until(lambda: server.control.reports[-1]["failed"])["assignment"]
    server.order(server.slot(2, contract={"columns": ["age"]}))
    server.until(lambda: "The contract of production/m/2" in server.control.reports[-1]["failed"].get("assignment", ""))
    assert server.control.reports[-1]["applied"] == 1
    assert server.predict().json()["version"] == 1
    assert server.assign(server.slot(2))["failed"] == {}


def test_polling_costs_little_and_counts_are_reported(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.predict()
    server.until(lambda: server.control.not_modified > 4)
    server.until(lambda: server.control.reports[-1]["served"] == {"production/m/1": 1})
    assert server.control.reports[-1]["server"] == f"serving-{server.port}"


def test_sigterm_finishes_what_runs(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, plan={"sleep": 3.0}), server.slot(2, "shadow"))
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(server.predict().status_code))
    thread.start()
    time.sleep(0.3)
    children = server.models()
    assert server.stop() == 0
    thread.join()
    assert answers == [200]
    assert {row["_version"] for row in server.journal()} == {1, 2}
    assert all(finished(path) for path in segments(server.home / FOLDER))
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize("keeps", [True, False], ids=["connections that stay", "a connection for each"])
def test_sigterm_under_load_fails_no_request(server: Any, keeps: bool) -> None:
    """Who was let in is answered, on connections that stay open, too; who comes later finds nobody listening."""
    server.start()
    server.assign(server.slot(1, plan={"sleep": 0.005}))
    answers: list[str] = []
    limits = httpx.Limits(max_keepalive_connections=None if keeps else 0)

    def ask() -> None:
        with httpx.Client(base_url=server.http.base_url, timeout=20, limits=limits) as client:
            while True:
                try:
                    answer = client.post("/models/m/predict", json={"age": 40})
                except httpx.ConnectError:
                    return
                assert answer.status_code == 200
                answers.append(answer.json()["id"])

    with ThreadPoolExecutor(12) as threads:
        asking = [threads.submit(ask) for _ in range(12)]
        server.until(lambda: len(answers) > 100)
        assert server.stop() == 0
        for one in asking:
            one.result()
    assert {row["_id"] for row in server.journal()} == {f"{answer}#0" for answer in answers}


def test_who_drains_is_not_ready_and_asks_callers_to_go(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, plan={"sleep": 1.0}))
    with httpx.Client(base_url=server.http.base_url) as check, ThreadPoolExecutor(1) as threads:
        assert check.get("/v2/health/ready").json() == {"ready": True}
        slow = threads.submit(server.predict)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        # the connection of this check was open before, so it still finds somebody
        server.until(lambda: check.get("/v2/health/ready").status_code == 503)
        assert slow.result().headers["connection"] == "close"
    assert server.process.wait(20) == 0


def test_the_command_serves_and_stops_in_order(server: Any) -> None:
    names = {"ORRERY_HOME": str(server.home), "ORRERY_SERVING_PORT": str(server.port), "ORRERY_PORT": "1"}
    server.process = subprocess.Popen([sys.executable, "-m", "orrery.serving"], env={**os.environ, **names})
    server.until(server.alive)
    early = server.predict()
    assert (early.status_code, early.headers["retry-after"]) == (503, "1")
    assert "not told yet what to serve" in early.json()["error"]
    assert server.stop() == 0


def test_a_taken_port_is_refused(server: Any, tmp_path: Path) -> None:
    server.start()
    names = {"ORRERY_HOME": str(tmp_path / "other"), "ORRERY_SERVING_PORT": str(server.port)}
    argv = [sys.executable, "-m", "orrery.serving"]
    second = subprocess.run(argv, env={**os.environ, **names}, capture_output=True, text=True, timeout=20)
    assert (second.returncode, f"Port {server.port} is taken" in second.stderr) == (2, True)


def test_a_second_server_is_refused(server: Any) -> None:
    server.start()
    argv = [sys.executable, "-m", "orrery.serving", "--home", str(server.home)]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert second.returncode == 2
    assert "An inference server already runs" in second.stderr


@pytest.mark.parametrize("heavy", ["fastapi", "polars", "sqlalchemy", "mlflow", "numpy", "pyarrow", "httpx"])
def test_the_process_stays_light(heavy: str) -> None:
    program = "import sys, orrery.serving.process, orrery.serving.__main__; print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    assert f"'{heavy}'" not in shown.stdout
    assert "'msgspec'" in shown.stdout


def test_memory_is_small(server: Any) -> None:
    import psutil

    server.start()
    server.assign(server.slot(1))
    for _ in range(200):
        server.predict()
    assert psutil.Process(server.process.pid).memory_info().rss < 60 << 20
