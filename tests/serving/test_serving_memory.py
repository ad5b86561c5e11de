"""A model process is held to the memory of its version; whatever it takes, the server goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

LIMIT, MUCH = 120 << 20, 300 << 20


def test_a_request_that_takes_too_much_memory_fails_alone_and_the_model_is_back(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, memory=LIMIT, timeout=20.0, plan={"eats": MUCH}))
    rows: list[Any] = [{"echo": number / 10, "do": "nothing"} for number in range(8)]
    rows[5] = {"echo": 0.5, "do": "eat"}

    async def all_of_them() -> list[httpx.Response]:
        url = f"http://127.0.0.1:{server.port}/models/m/predict"
        async with httpx.AsyncClient(timeout=30) as http:
            return await asyncio.gather(*(http.post(url, json=row) for row in rows))

    answers = asyncio.run(all_of_them())
    assert [answer.status_code for answer in answers] == [200] * 5 + [500] + [200] * 2
    assert "used more than 120.0 MB of memory" in answers[5].json()["error"]
    assert server.predict().status_code == 200
    assert server.count("orrery_model_restarts_total") == 2
    assert "Version 1 of m: its process used more than 120.0 MB of memory" in (server.folder / "log").read_text()


def test_the_same_within_the_limit_is_answered(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, memory=4 * MUCH, plan={"eats": MUCH}), server.slot(2, "shadow", plan={"eats": MUCH}))
    assert server.predict({"do": "eat"}, Prefer="wait-shadow").status_code == 200
    assert [row["_role"] for row in server.journal()] == ["champion", "shadow"]
    assert server.count("orrery_model_restarts_total") == 0


def test_a_version_that_does_not_fit_is_reported_and_the_one_before_answers(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, memory=LIMIT))
    server.order(server.slot(2, memory=LIMIT, plan={"begins_with": MUCH}))
    failed = server.until(lambda: server.control.reports[-1]["failed"], 30)
    assert failed == {"production/m/2": "used more than 120.0 MB of memory"}
    assert server.predict().json()["version"] == 1
