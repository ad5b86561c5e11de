"""Two teams on one orrery: what is one team's is in no answer to the other, at whatever address, known or to come."""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from orrery.access.roles import ROLES, Grant, Principal
from orrery.app import Orrery
from orrery.errors import OrreryError
from orrery.settings import Settings
from orrery.source.http import git_app
from orrery.timeline.event import Draft
from orrery.web.rules import rule_of
from orrery.web.server import create
from web.conftest import CONTRACT, PROJECT, History
from web.test_web_entrance import ADDRESSES, BY, FILLED, MODEL, PASSWORD, _Bare, bearer, token

MARK = "zanzibar"
"""Stands in every name, reason and value of the team air."""
THEIRS = {"model": MARK, "name": f"{MARK}-rows", "number": "1", "issue": f"{MARK}1", "sha": f"{MARK}", "secret": MARK}
OURS = {"model": "tides", "name": "tide-rows", "number": "1", "issue": "tide1", "sha": "c0ffee5", "secret": "tide"}
NOWHERE = {**OURS, "model": "xanaduuu", "name": "xanaduuu-rows", "issue": "xanaduuu1", "secret": "xanaduuu"}
NEAR = THEIRS | {"model": f"{MARK}s", "name": f"{MARK}-row"}


@pytest.fixture
def orrery(home: Settings, written: Path) -> Iterator[Orrery]:
    """Two teams: air, all of whose names, reasons and values are marked, and sea, in which bob has every role."""
    shutil.copytree(written, home.home, dirs_exist_ok=True)
    made = Orrery(replace(home, access="required", replay=True))
    accounts = made.accounts
    for name, roles, place in (
        ("mara", ("administrator",), "*"),
        (f"{MARK}-ann", ("scientist",), f"team/{MARK}-air"),
        ("bob", ROLES, "team/sea"),
        ("new", (), ""),
    ):
        accounts.add(name, **BY)
        for role in roles:
            accounts.give(name, role, place, **BY)
    for project, team in ((MARK, f"{MARK}-air"), (MODEL, f"{MARK}-air"), ("tides", "sea")):
        accounts.assign(project, team, **BY)
    for dataset, team in ((f"{MARK}-rows", f"{MARK}-air"), ("flights", f"{MARK}-air"), ("tide-rows", "sea")):
        accounts.assign(f"data/{dataset}", team, **BY)
    accounts.choose_password("mara", PASSWORD, **BY)
    _written(made, MARK, f"{MARK}-rows", MARK)
    _written(made, "tides", "tide-rows", "tide")
    yield made
    made.timeline.engine.dispose()


def _written(orrery: Orrery, model: str, dataset: str, word: str) -> None:
    """Write what happens to a model, with a word in all of it."""
    model_spec = {**PROJECT["model"], "name": model, "objective": word, "owner": word, "segments": [word]}
    spec = {**PROJECT, "model": model_spec, "data": {word: dataset}}
    columns = {**CONTRACT["columns"], word: {"type": "string", "nulls": 0.0, "categories": [word]}}
    facts: list[tuple[str, dict[str, Any]]] = [
        ("contract_changed", {"contract": {**CONTRACT, "columns": columns}, "digest": word}),
        ("data_added", {"version": 1, "rows": 27, "digest": word, "quarantined": 1}),
        ("quarantined", {"rows": 1, "reasons": {word: 1}, "version": 1}),
    ]
    drafts = [Draft(kind=kind, actor=word, why=word, data={"dataset": dataset, **data}) for kind, data in facts]
    orrery.append(drafts)
    history = History(orrery, model)
    commit = f"{word}00000000"
    pushed = {"commit": commit, "branch": "main", "message": word, "author": word, "spec": spec}
    history.add("pushed", f"Pushed: {word}", actor=word, **pushed)
    history.add("tested", word, environment="development", commit=commit, passed=1, seconds=1, output=word)
    data = {dataset: 1}
    history.add("triggered", word, run=word, reason="push", change="redesign", commit=commit, data=data, evidence={})
    trained = {"params": {word: word}, "metrics": {"brier": 0.1}, "artifact": word, "tracking_run": word, "rows": 27}
    history.add("trained", word, version=1, run=word, commit=commit, change="redesign", data=data, **trained)
    gate = {"brier": {"verdict": "passed", "why": word, "numbers": {"value": 0.1}}}
    history.add("gated", word, version=1, passed=True, gates=gate)
    history.promote(180, 1, "staging", word)
    history.review(180, 1)
    history.add("issue_opened", word, actor=word, version=1, issue=f"{word}1", title=word, owner=word)
    history.add("business", word, actor=word)


def address_of(path: str, names: dict[str, str]) -> str:
    path = path.replace(f"/git/{MODEL}.git", "/git/{model}.git")
    return re.sub(r"{(\w+)}", lambda match: names.get(match[1]) or FILLED[match[1]], path)


def bodies(orrery: Orrery) -> dict[tuple[str, str], dict[str, Any]]:
    """What each address takes, filled with what is the team air's: numbers of its events and versions."""
    seq = next(event.seq for event in orrery.timeline.read(MARK, kinds=["trained"]))
    known = {"event": seq, "version": 1, "to": 1, "environment": "production", "role": "quality", "gate": "brier"}
    known |= {"owner": "bob", "title": "Words", "why": "Because.", "change": "refresh", "emergency": True, "value": "x"}
    described = create(Orrery.__new__(_Bare)).openapi()
    schemas, found = described["components"]["schemas"], {}
    for path, methods in described["paths"].items():
        for method, one in methods.items():
            content = one.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            fields = schemas.get(name, {}).get("properties", {})
            found[method.upper(), path] = {field: known[field] for field in fields if field in known}
    return found


def ask(web: httpx.Client, shown: dict[str, str], method: str, path: str, names: dict[str, str], body: Any) -> Any:
    address = address_of(path, names)
    form = body or {"why": "Because.", "event": "1", "version": "1", "title": "Words", "owner": "bob"}
    more = {"json": body} if path.startswith("/api/") and body else {"data": form} if method == "POST" else {}
    query = {"why": "Because."} if method == "DELETE" or (path == "/api/data/{name}" and method == "POST") else {}
    return web.request(method, address, headers=shown, params=query, **more)


def without(answer: httpx.Response, names: dict[str, str]) -> str:
    """An answer without the names that were asked for."""
    text = answer.text + str(answer.headers)
    for name in sorted({*names.values()}, key=len, reverse=True):
        text = text.replace(name, "")
    return text


@pytest.mark.parametrize("who", ["bob", "new"])
def test_nothing_of_one_team_is_in_any_answer_to_the_other(web: httpx.Client, orrery: Orrery, who: str) -> None:
    shown, filled = bearer(token(orrery, who)), bodies(orrery)
    heads = {name: orrery.timeline.head(name) for name in (MARK, MODEL)}
    told, there = [], []
    for method, path in ADDRESSES:
        if path == "/mlflow/x":
            continue  # tests/web/test_web_mlflow_teams.py
        rule = rule_of(method, address_of(path, FILLED))
        body = filled.get((method, path))
        answers = {}
        for what, names in (("theirs", THEIRS), ("near", NEAR), ("nowhere", NOWHERE), ("ours", OURS)):
            answer = answers[what] = ask(web, shown, method, path, names, body)
            assert answer.status_code < 500, (method, path, what, answer.text)
            if MARK in without(answer, names if what != "ours" else {}):
                told.append((method, path, what, answer.status_code, answer.text[:300]))
        # Rows can be added to what is not there yet: that a name is taken cannot be kept from who adds them.
        if rule is not None and rule.where in ("project", "dataset") and (method, path) != ("POST", "/api/data/{name}"):
            theirs, nowhere = (
                without(answers[what], names) for what, names in (("theirs", THEIRS), ("nowhere", NOWHERE))
            )
            same = difflib.SequenceMatcher(None, _words(theirs), _words(nowhere)).ratio()
            if answers["theirs"].status_code != answers["nowhere"].status_code or same < 1:
                there.append((method, path, theirs, nowhere))
    assert told == []
    assert there == [], "what is not yours is answered as what is not there"
    assert {name: orrery.timeline.head(name) for name in heads} == heads


def _words(text: str) -> list[str]:
    return re.sub(r"'date': '[^']*'|'content-length': '\d+'", "", text).split()


def test_who_may_see_it_is_shown_the_mark_wherever_there_is_something(web: httpx.Client, orrery: Orrery) -> None:
    shown, silent = bearer(token(orrery, "mara")), []
    for method, path in ADDRESSES:
        if method == "GET" and "{" in path and not re.search(r"secret|served|channel|/at$", path):
            answer = ask(web, shown, method, path, THEIRS, None)
            if MARK not in without(answer, {"path": address_of(path, THEIRS)}):
                silent.append((path, answer.status_code))
    assert silent == [], "the test above looks for a word that is not there"
    for path in ("/", "/reviews", "/issues", "/data", "/api/models", "/api/reviews", "/api/data"):
        assert MARK in web.get(path, headers=shown).text, path
        assert "tide" in web.get(path, headers=bearer(token(orrery, "bob"))).text, path


def test_commands_say_nothing_of_others(orrery: Orrery) -> None:
    bob = orrery.acting(Principal("bob", tuple(Grant(role, "team/sea") for role in ROLES), orrery.accounts.teams()))
    assert bob.models() == ["tides"] and list(bob.datasets()) == ["tide-rows"]
    for name in (MARK, f"{MARK}s", MARK[:-1], "xanadu"):
        with pytest.raises(OrreryError) as found:
            bob.model(name)
        assert MARK not in str(found.value).replace(f"{name!r}", "")
    assert bob.team_apart("tides", f"{MARK}-rows") and not bob.team_apart("tides", "tide-rows")


def test_what_a_push_prints_tells_of_its_own_project_alone(
    orrery: Orrery, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another team's project is told of the very same commit meanwhile, and so is one's own."""
    monkeypatch.setitem(git_app.__kwdefaults__, "quiet", 4.0)
    shown, place = token(orrery, "bob", "git"), address.removeprefix("http://")
    project = tmp_path / "tides"
    project.mkdir()
    text = '[model]\nname = "tides"\ntask = "regression"\ntarget = "height"\n[data]\ntides = "tide-rows"\n'
    (project / "orrery.toml").write_text(text)

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"}
        who = ["-c", "user.name=Bob", "-c", "user.email=bob@example.org"]
        return subprocess.run(["git", *who, *words], cwd=project, env=env, capture_output=True, text=True, timeout=60)

    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "Begin")):
        assert git(*words).returncode == 0
    commit = git("rev-parse", "HEAD").stdout.strip()

    def meanwhile() -> None:
        while not any(one.data["commit"] == commit for one in orrery.timeline.read("tides", kinds=["pushed"])):
            time.sleep(0.05)
        for model, word in ((MARK, MARK), ("tides", "ebb")):
            facts = {"commit": commit, "stage": "tests", "output": word, "final": True}
            orrery.append([Draft(kind="failed", actor=word, why=f"{word} failed.", model=model, data=facts)])

    thread = threading.Thread(target=meanwhile, daemon=True)
    thread.start()
    pushed = git("push", f"http://bob:{shown}@{place}/git/tides.git", "main")
    thread.join(30)
    assert pushed.returncode == 0 and "ebb" in pushed.stderr, pushed.stderr
    assert MARK not in pushed.stderr
    theirs, nowhere = (git("push", f"http://bob:{shown}@{place}/git/{name}.git", "main") for name in (MARK, "xanaduuu"))
    assert theirs.returncode and theirs.stderr.replace(MARK, "") == nowhere.stderr.replace("xanaduuu", "")
