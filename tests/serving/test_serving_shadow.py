"""Challengers ride along, predictions are written down, and neither costs the caller anything."""

from __future__ import annotations

import resource
import threading
import time
from typing import Any

import httpx


def seen(server: Any, version: int) -> list[dict[str, Any]]:
    return [row for row in server.journal() if row["_version"] == version]


def test_a_shadow_sees_the_same_request_after_the_answer(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, entity="city"), server.slot(2, "shadow"), server.slot(3, "guard"))
    answer = server.predict({"age": 40, "city": "Rome"}, x_request_id="r")
    assert answer.json()["version"] == 1
    rows = server.until(lambda: len(server.journal()) == 3 and server.journal())
    assert {(row["_id"], row["_version"], row["_role"]) for row in rows} == {
        ("r#0", 1, "champion"),
        ("r#0", 2, "shadow"),
        ("r#0", 3, "guard"),
    }
    champion = next(row for row in rows if row["_version"] == 1)
    assert (champion["age"], champion["city"], champion["_entity"]) == (40, "Rome", "Rome")
    assert all("age" not in row for row in rows if row["_version"] != 1)
    assert len({row["_at"] for row in rows}) == 1


def test_wait_shadow_holds_the_answer_back(server: Any) -> None:
    server.start()
    server.assign(server.slot(1), server.slot(2, "shadow", plan={"sleep": 0.3}))
    began = time.monotonic()
    server.predict(prefer="wait-shadow")
    assert time.monotonic() - began > 0.3
    assert len(seen(server, 2)) == 1
    began = time.monotonic()
    server.predict()
    assert time.monotonic() - began < 0.3
    assert len(seen(server, 2)) == 1


def test_a_slow_shadow_sheds_and_costs_nothing(server: Any) -> None:
    server.start()
    server.assign(server.slot(1), server.slot(2, "shadow", plan={"sleep": 0.5}, timeout=2.0))
    took = []
    for _ in range(150):
        began = time.monotonic()
        assert server.predict([{"age": 40}] * 64).status_code == 200
        took.append(time.monotonic() - began)
    assert sorted(took)[75] < 0.25
    batches = 1 + sum(took) / 0.5  # that the challenger has begun, of two such requests each
    assert server.count("orrery_shadow_shed_total", version="2") >= 150 - 1024 // 64 - 2 * batches
    assert server.count("orrery_predictions_total", role="champion") == 150 * 64


def test_a_shadow_that_dies_or_cannot_start_costs_nothing(server: Any) -> None:
    server.start()
    report = server.assign(
        server.slot(1, plan={"sleep": 0}),
        server.slot(2, "shadow", plan={"fails": "no such feature"}),
        server.slot(3, "shadow"),
    )
    assert report["failed"] == {"production/m/2": "no such feature"}
    assert server.predict().status_code == 200
    server.until(lambda: len(seen(server, 3)) == 1)
    assert server.count("orrery_shadow_failures_total", version="2") == 1
    assert server.http.get("/v2/health/ready").status_code == 200
    next(process for process in server.models() if "artifact-m-3" in " ".join(process.cmdline())).kill()
    for _ in range(20):
        assert server.predict().status_code == 200
    server.until(lambda: len(seen(server, 3)) == 21)


def test_killing_the_server_loses_no_answer(server: Any) -> None:
    server.start()
    server.assign(server.slot(1), server.slot(2, "shadow"))
    answered: list[str] = []

    def ask(number: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as http:
            for count in range(10_000):
                try:
                    answer = http.post(
                        "/models/m/predict", json={"age": 1}, headers={"x-request-id": f"{number}-{count}"}
                    )
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    answered.append(f"{number}-{count}#0")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    server.until(lambda: len(answered) > 100)
    children = server.models()
    server.kill()
    for thread in threads:
        thread.join()
    written = [row["_id"] for row in seen(server, 1)]
    assert len(answered) > 100
    assert set(answered) <= set(written)
    assert len(written) == len(set(written))
    server.until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    server.start()
    server.until(lambda: server.predict().status_code == 200)


def full(server: Any) -> None:
    """Let the kernel refuse the server any more bytes in its files, as a full disk does."""
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))


def test_a_full_disk_refuses_or_sheds_loudly(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.predict()
    full(server)
    refused = server.predict()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "cannot be written down" in refused.json()["error"]
    assert "cannot be written: File too large" in refused.json()["error"]
    assert server.count("orrery_journal_lost_rows_total") == 1
    assert server.stop() == 0
    server.start("shed")
    server.until(lambda: server.predict().status_code == 200)
    written = len(server.journal())
    full(server)
    assert server.predict().status_code == 200
    assert (server.count("orrery_journal_lost_rows_total"), len(server.journal())) == (1, written)


def test_the_clock_of_a_replay(server: Any) -> None:
    (server.home / "clock").write_text("2013-06-10T05:00:00.000000Z")
    server.start("replay")
    server.assign(server.slot(1))
    server.predict()
    server.predict(x_orrery_at="2013-06-11T05:00:00Z")
    first, second = (row["_at"] for row in server.journal())
    assert (first, second - first) == (1370840400_000000, 86_400_000_000)
    assert server.predict(x_orrery_at="tomorrow").status_code == 400


def test_without_a_replay_nobody_sets_the_time(server: Any) -> None:
    server.start()
    server.assign(server.slot(1))
    server.predict(x_orrery_at="2013-06-11T05:00:00Z")
    assert abs(server.journal()[0]["_at"] / 1e6 - time.time()) < 60
