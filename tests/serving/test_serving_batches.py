"""What waits together is answered together: nobody gets another's answer, and who fails does so alone."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import pytest

from orrery.serving.gather import Batch, Waiting, batches
from orrery.serving.pace import MOST, Pace
from orrery.serving.requests import Answer, Request

SLOW = {"sleep": 0.05}
"""Long enough for the others to gather while the first one is answered."""


def waiting(*tables: dict[str, list[Any]]) -> list[Waiting]:
    loop = asyncio.new_event_loop()
    made = []
    for number, columns in enumerate(tables):
        answer: asyncio.Future[Answer] = loop.create_future()
        rows = len(next(iter(columns.values())))
        made.append(Waiting(Request(f"r{number}", columns, rows), 0, answer, 0.0))
    loop.close()
    return made


def test_requests_with_the_same_columns_are_one_batch() -> None:
    found = batches(waiting({"a": [1, 2], "b": [3, 4]}, {"a": [5]}, {"a": [6], "b": [None]}))
    assert [(batch.columns, batch.rows) for batch in found] == [
        ({"a": [1, 2, 6], "b": [3, 4, None]}, 3),
        ({"a": [5]}, 1),
    ]
    assert [part for _, part in found[0].per_request([10, 20, 60])] == [[10, 20], [60]]


def test_a_row_leads_to_its_request() -> None:
    batch = Batch.of(waiting({"a": [1, 2]}, {"a": [3]}, {"a": [4, 5]}))
    for row, request in enumerate(("r0", "r0", "r1", "r2", "r2")):
        one, others = batch.apart(row)
        assert [each.request.id for each in one.asked] == [request]
        assert len(others.asked) == 2 and others.rows + one.rows == 5
    first, second = batch.halves()
    assert (first.columns, second.columns) == ({"a": [1, 2]}, {"a": [3, 4, 5]})
    assert batch.without([False, True, False]).columns == {"a": [1, 2, 4, 5]}


@pytest.mark.parametrize(("fixed", "each"), [(0.0075, 1e-5), (0.5, 0.0), (0.0, 0.01), (0.001, 0.002)])
def test_a_batch_is_as_large_as_is_worth_it(fixed: float, each: float) -> None:
    pace = Pace()
    for rows in (1, 3, 20, 64, 7, 40) * 5:
        pace.took(rows, fixed + each * rows)
    worth = max(0.1 - fixed, 8 * fixed)
    assert pace.limit == pytest.approx(min(2 * 64, math.floor(worth / each) if each else MOST), rel=0.01, abs=1)
    assert pace.seconds(50) == pytest.approx(50 * each + math.ceil(50 / pace.limit) * fixed, rel=0.01)


def ask_together(server: Any, rows: list[Any]) -> list[httpx.Response]:
    """Send requests at the same time, each on a connection of its own."""

    async def all_of_them() -> list[httpx.Response]:
        url = f"http://127.0.0.1:{server.port}/models/m/predict"
        async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=200)) as http:
            return await asyncio.gather(*(http.post(url, json=row) for row in rows))

    return asyncio.run(all_of_them())


def test_every_request_gets_its_own_answer_from_few_calls(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, plan=SLOW))
    answers = ask_together(server, [[{"echo": number / 100}] * (1 + number % 3) for number in range(60)])
    calls = server.count("request_predict_seconds_bucket", le="0.02"), server.count("request_predict_seconds_count")
    assert calls == (0, 60)  # whoever asks one by one waits for all the others
    for number, answer in enumerate(answers):
        assert answer.json()["probability"] == [number / 100] * (1 + number % 3)
    written = {row["_id"]: row["echo"] for row in server.journal()}
    assert len(written) == sum(1 + number % 3 for number in range(60))
    for number, answer in enumerate(answers):
        assert written[f"{answer.json()['id']}#0"] == number / 100


@pytest.mark.parametrize(("what", "status"), [("fail", 500), ("odd", 400), ("short", 500), ("die", 500)])
def test_a_bad_request_fails_alone(server: Any, what: str, status: int) -> None:
    server.start()
    server.assign(server.slot(1, plan=SLOW, timeout=20))
    rows: list[Any] = [{"echo": number / 100, "do": "nothing"} for number in range(20)]
    rows[13] = {"echo": 0.5, "do": what}
    answers = ask_together(server, rows)
    assert [answer.status_code for answer in answers] == [status if row["do"] == what else 200 for row in rows]
    assert [answer.json()["probability"] for answer in answers if answer.status_code == 200] == [
        row["echo"] for row in rows if row["do"] != what
    ]
    assert len({row["_id"] for row in server.journal()}) == len(server.journal()) == 19


def test_what_cannot_be_answered_in_time_is_refused_at_once(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, timeout=0.7, plan={"each": 0.1}))
    for rows in (1, 2, 3):
        assert server.predict([{"echo": 0.1}] * rows).status_code == 200
    answers = ask_together(server, [{"echo": 0.1}] * 30)
    statuses = {answer.status_code for answer in answers}
    assert 429 in statuses and 200 in statuses
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert len(server.journal()) == 6 + sum(answer.status_code == 200 for answer in answers)
