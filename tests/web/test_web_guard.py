"""Who may ask, and how much may be sent."""

from __future__ import annotations

import httpx
import pytest

from orrery.app import Orrery

pytestmark = pytest.mark.usefixtures("year")
ORDER = "/api/models/flight-delay/versions/5/approve"
FORM = "/flight-delay/versions/5/approve"
WHY = {"why": "Because."}


def test_a_name_that_is_not_ours_is_not_answered(web: httpx.Client) -> None:
    for host in ("evil.example", "evil.example:8700", "127.0.0.1.evil.example", "10.0.0.1:8700", ""):
        for path in ("/", "/api/models", "/mlflow/", "/git/flight-delay.git/info/refs"):
            assert web.get(path, headers={"Host": host}).status_code in (400, 403), (host, path)


def test_loopback_names_are_ours(web: httpx.Client) -> None:
    for host in ("127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "localhost"):
        assert web.get("/api/health", headers={"Host": host.format(port=web.base_url.port)}).status_code == 200, host


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "https://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


def test_a_foreign_page_changes_nothing(web: httpx.Client, orrery: Orrery) -> None:
    head = orrery.timeline.head()
    for headers in FOREIGN:
        assert web.post(ORDER, json=WHY, headers=headers).status_code == 403, headers
        assert web.post(FORM, data=WHY, headers=headers).status_code == 403, headers
        assert web.post("/mlflow/api/2.0/mlflow/runs/create", json={}, headers=headers).status_code == 403, headers
    assert orrery.timeline.head() == head


def test_a_foreign_page_reads_and_polls_nothing_but_may_link_to_pages(web: httpx.Client) -> None:
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert web.get("/api/serving/assignment?server=x&applied=-1", headers=cross).status_code == 403
    assert web.get("/api/status").json()["servers"] == []
    assert web.get("/flight-delay", headers=cross).status_code == 200


def test_what_nobody_foresaw_is_a_sentence_too(web: httpx.Client, orrery: Orrery) -> None:
    with orrery.timeline.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER IF EXISTS events_no_update")
        connection.exec_driver_sql("ALTER TABLE events RENAME TO lost")
    api, page = web.get("/api/models"), web.get("/")
    assert api.status_code == page.status_code == 503
    assert "OperationalError" in api.json()["error"]["what"] and "no such table" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_our_own_page_does(web: httpx.Client, address: str) -> None:
    own = {"Origin": address, "Sec-Fetch-Site": "same-origin"}
    assert web.post(FORM, data=WHY, headers=own).status_code == 303


def test_a_body_has_a_limit_announced_or_not(web: httpx.Client, orrery: Orrery) -> None:
    head = orrery.timeline.head()
    large = b'{"why": "' + b"x" * 2**20 + b'"}'
    assert web.post(ORDER, content=large).status_code == 413
    assert web.post(ORDER, content=iter([large[:700_000], large[700_000:]])).status_code == 413
    assert orrery.timeline.head() == head


def test_pages_carry_a_strict_policy(web: httpx.Client) -> None:
    for path in ("/", "/flight-delay", "/static/orrery.css", "/api/models", "/nowhere"):
        headers = web.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy and headers["x-content-type-options"] == "nosniff"
