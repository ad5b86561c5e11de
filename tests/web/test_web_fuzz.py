"""Whatever is sent to the API, as whom: it is told what is wrong, nothing breaks, and no role gets what it may not.

The small size runs with the other tests; ``make fuzz`` runs the large one.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orrery.access.roles import ALLOWED, ROLES
from orrery.app import Orrery
from orrery.settings import load
from orrery.web.rules import rule_of
from orrery.web.server import create
from web.test_web_entrance import BY, MODEL, _Bare

EXAMPLES = 300 if os.environ.get("FUZZ") == "large" else 6
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
WHO = (*ROLES, "everywhere", "nobody")
"""A role in the project; administrator everywhere; an account without any role."""
TABLES = st.text('carrier,temp\n\r" 0.5-', max_size=40).map(str.encode) | st.binary(max_size=60)
for kind in (
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.arrow.file",
    "application/vnd.apache.parquet",
    "text/csv",
    "text/tab-separated-values",
    "application/x-ndjson",
    "application/jsonl",
):
    schemathesis.openapi.media_type(kind, TABLES)
schema = schemathesis.openapi.from_dict(create(Orrery.__new__(_Bare)).openapi())


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, written: Path) -> Iterator[tuple[str, dict[str, str], Orrery]]:
    """Address of a control plane with a model of half a year, a token of each, and what is behind it."""
    folder = tmp_path_factory.mktemp("fuzz") / "home"
    shutil.copytree(written, folder)
    orrery = Orrery(replace(load(home=folder), access="required", replay=True))
    tokens = {}
    for who in WHO:
        orrery.accounts.add(f"a-{who}", **BY)
        if who != "nobody":
            orrery.accounts.give(f"a-{who}", *(("administrator", "*") if who == "everywhere" else (who, MODEL)), **BY)
        tokens[who] = orrery.keys.token(f"a-{who}", scopes=("api",), **BY)[0]
    config = uvicorn.Config(create(orrery), loop="asyncio", host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", tokens, orrery
    server.should_exit = True
    thread.join(10)
    orrery.timeline.engine.dispose()


def may(who: str, method: str, path: str) -> bool:
    """Say what the permission table says."""
    rule = rule_of(method, path)
    if rule is None:
        return False
    if rule.permission in ("public", "anybody"):
        return True
    if rule.permission == "serving" or who == "nobody":
        return False
    if who == "everywhere":
        return True
    # A dataset without a team is common to who has the permission anywhere.
    ours = rule.where == "dataset" or (rule.where == "project" and rule.name == MODEL)
    return ours and who in ALLOWED[rule.permission]


@schema.given(who=st.sampled_from(WHO), model=st.sampled_from([MODEL, MODEL, MODEL, "tides"]))
@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 100)
@seed(7)
def test_no_role_gets_what_it_may_not(case: schemathesis.Case, who: str, model: str, fuzzed: Any) -> None:
    url, tokens, _ = fuzzed
    parts: dict[str, Any] = case.path_parameters
    parts |= {name: {"model": model, "name": "flights", "number": "5"}[name] for name in parts if name in FIXED}
    case.headers = {**(case.headers or {}), "Authorization": f"Bearer {tokens[who]}"}
    answer = case.call(base_url=url)
    case.validate_response(answer, checks=CHECKS)
    if answer.status_code < 400:
        path = httpx.URL(answer.request.url).path
        assert may(who, case.method.upper(), path), (who, case.method, path, answer.status_code)


FIXED = ("model", "name", "number")


def test_the_chain_holds_after_all_that(fuzzed: Any) -> None:
    from orrery.timeline.verify import verify

    orrery = fuzzed[2]
    assert verify(event.to_json() for event in orrery.timeline.read()).holds
    for name in orrery.timeline.models():
        orrery.states.model(name)  # folds
