"""Several processes of one inference server: one port, one page of metrics; one of them goes, and nobody notices."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from orrery.data.journal import FOLDER, segments
from orrery.serving.replicas import together
from serving.conftest import Served


class Pair:
    """Two replicas of one server; ``served`` talks to whichever the kernel chooses."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        for number in (1, 2):
            self.start(number)

    def start(self, number: int) -> None:
        self.served.start(replicas=2, replica=number, grpc_port=self.served.grpc_port)
        assert self.served.process is not None
        self.processes[number], process = self.served.process, psutil.Process(self.served.process.pid)
        here = ("127.0.0.1", self.served.port)
        self.served.until(lambda: ("LISTEN", here) in [(one.status, one.laddr) for one in process.net_connections()])

    def names(self) -> set[str]:
        return {f"serving-{self.served.port}-{number}" for number in self.processes}

    def assign(self, *slots: dict[str, Any]) -> None:
        """Assign, and wait until both have carried it out."""
        seq, reports = self.served.order(*slots), self.served.control.reports
        self.served.until(lambda: {one["server"] for one in reports if one["applied"] == seq} == self.names(), 30)

    def predict(self) -> httpx.Response:
        """Ask on a connection of its own, which the kernel gives to one of them."""
        return httpx.post(f"http://127.0.0.1:{self.served.port}/models/m/predict", json={"age": 40}, timeout=20)

    def answered(self) -> Counter[str]:
        """Return how many requests each replica has answered, as any of them tells."""
        found: Counter[str] = Counter()
        for line in httpx.get(f"http://127.0.0.1:{self.served.port}/metrics").text.splitlines():
            if line.startswith("orrery_requests_total{") and 'code="200"' in line:
                found[line.split('replica="')[1][0]] += int(line.rsplit(" ", 1)[1])
        return found

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.served.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    found = Pair(Served(tmp_path))
    yield found
    found.close()


def test_both_follow_the_assignment_answer_and_tell_of_each_other(pair: Pair) -> None:
    pair.assign(pair.served.slot(1))
    answers = [pair.predict() for _ in range(40)]
    assert {answer.status_code for answer in answers} == {200}
    told = pair.served.until(lambda: found if (found := pair.answered()).total() == 40 else None)
    assert set(told) == {"1", "2"}, "the kernel gave all connections to one of them"
    assert {row["_id"] for row in pair.served.journal()} == {f"{answer.json()['id']}#0" for answer in answers}
    assert len({path.name.split("-")[2] for path in segments(pair.served.home / FOLDER)}) == 2
    text = httpx.get(f"http://127.0.0.1:{pair.served.port}/metrics").text
    assert text.count("# TYPE orrery_requests_total counter") == 1
    channel = grpc.insecure_channel(f"127.0.0.1:{pair.served.grpc_port}")
    health = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"", timeout=20) == b"\x08\x01"
    channel.close()
    pair.assign(pair.served.slot(2))
    assert {pair.predict().json()["version"] for _ in range(20)} == {2}


def test_one_is_replaced_after_the_other_and_no_request_fails(pair: Pair) -> None:
    pair.assign(pair.served.slot(1, plan={"sleep": 0.002}))
    done, answers = threading.Event(), []

    def ask(keeps: bool) -> None:
        limits = httpx.Limits(max_keepalive_connections=None if keeps else 0)
        with httpx.Client(base_url=pair.served.http.base_url, timeout=20, limits=limits) as client:
            while not done.is_set():
                answers.append(client.post("/models/m/predict", json={"age": 40}).status_code)

    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(ask, number % 2 == 0) for number in range(8)]
        try:
            for number in (1, 2):
                before = len(answers)
                pair.served.until(lambda: len(answers) > before + 50)  # noqa: B023
                process = pair.processes[number]
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
                pair.start(number)
                pair.served.until(lambda: pair.answered()[str(number)] > 20, 30)  # noqa: B023
        finally:
            done.set()
        for one in asking:
            one.result()
    assert set(answers) == {200}
    assert len(pair.served.journal()) == len(answers)


def test_one_that_is_killed_comes_back_with_what_it_had(pair: Pair) -> None:
    pair.assign(pair.served.slot(1))
    pair.processes[1].kill()
    pair.processes[1].wait()
    assert {pair.predict().status_code for _ in range(20)} == {200}
    pair.served.control.close()  # the control plane is away: it starts from the disk
    pair.start(1)
    pair.served.until(lambda: pair.predict().status_code == 200 and pair.answered()["1"] > 0, 30)


def test_a_replica_runs_once_and_not_beside_a_server_that_is_alone(pair: Pair) -> None:
    served = pair.served
    for about in ({"replicas": 2, "replica": 1}, {}):
        with pytest.raises(AssertionError, match="the server has ended"):
            until_ended(served, about)
    assert (served.folder / "log").read_text().count("An inference server already runs") == 2
    served.process = pair.processes[2]


def until_ended(served: Served, about: dict[str, int]) -> None:
    served.start(**about)
    assert served.process is not None
    served.process.wait(20)
    served.alive()


def test_metrics_of_labels_and_without_come_together() -> None:
    text = "# HELP a A.\n# TYPE a counter\na 1\n# HELP b B.\n# TYPE b counter\n" + 'b{x="{ }"} 2\n'
    assert together({1: text, 3: text}).splitlines() == [
        *("# HELP a A.", "# TYPE a counter", 'a{replica="1"} 1', 'a{replica="3"} 1'),
        *("# HELP b B.", "# TYPE b counter", 'b{replica="1",x="{ }"} 2', 'b{replica="3",x="{ }"} 2'),
    ]
