"""One orrery that runs on while projects fail, pushes are refused, requests are malformed and people say no."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from acceptance.support import (
    PIPELINE,
    Platform,
    asked_all_along,
    cli,
    failing_git,
    git,
    named,
    tides,
    wait,
    write_project,
)
from orrery.pipeline.loaded import VARIABLE as LOADED
from orrery.workers.contained import MARK
from orrery.workers.supervisor import processes

TIDES = "/api/models/tides"


# --- 1. a project that fails fails as itself -------------------------------------------------------------------------

TRAIN = "    x = np.column_stack"
ANSWER = "        return features.to_numpy() @"
BAD = {
    "does not build": ({"requirements.txt": "numpy == not.a.version\n"}, "build", "requirements.txt"),
    "its tests fail": ({"tests": "def test_it():\n    assert 1 == 2\n"}, "tests", "1 of 1 tests failed"),
    "an exception in a step": (
        {"pipeline": PIPELINE.replace("    return tides.select", "    1 / 0\n    return tides.select")},
        "training",
        "ZeroDivisionError",
    ),
    "a wrong shape": (
        {"pipeline": PIPELINE.replace(ANSWER, "        return np.zeros((len(features), 3))\n" + ANSWER)},
        "training",
        "shape",
    ),
    "no model": ({"pipeline": PIPELINE.replace(TRAIN, "    return None\n" + TRAIN)}, "training", "None"),
    "hangs": (
        {
            "pipeline": PIPELINE.replace(TRAIN, "    import time; time.sleep(600)\n" + TRAIN),
            "toml": named("trouble", '[resources]\nwall = "3s"\n'),
        },
        "training",
        "3",
    ),
    "eats memory": (
        {
            "pipeline": PIPELINE.replace(TRAIN, "    np.ones(400_000_000).sum()\n" + TRAIN),
            "toml": named("trouble", "[resources]\nmemory_gb = 0.6\n"),
        },
        "training",
        "memory",
    ),
    "exits in training": (
        {"pipeline": PIPELINE.replace(TRAIN, "    import os; os._exit(7)\n" + TRAIN)},
        "training",
        "7",
    ),
    "exits when it predicts one row": (
        {"pipeline": PIPELINE.replace(ANSWER, "        if len(features) == 1: import os; os._exit(8)\n" + ANSWER)},
        "gates",
        "exit code 8",
    ),
    "eats memory when it predicts one row": (
        {
            "pipeline": PIPELINE.replace(
                ANSWER, "        if len(features) == 1: np.ones(400_000_000).sum()\n" + ANSWER
            ),
            "toml": named("trouble", "[resources]\nmemory_gb = 0.6\n"),
        },
        "gates",
        "used more than 614.4 MB of memory",
    ),
}


SLOW = ("a wrong shape", "no model")
"""What the tests of training look at already."""


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in BAD])
def test_a_project_that_fails_fails_as_itself(platform: Platform, case: str) -> None:
    """A clear reason on the timeline and in the push, an issue to the owner; the good model answers all along."""
    files, stage, reason = BAD[case]
    before = platform.orrery.timeline.head()[0]
    checkout = trouble(platform, **files)
    with asked_all_along(platform):
        said = platform.pushed(checkout, "trouble", case)
    failed = platform.events("trouble", "failed", after=before)
    assert [event.data["stage"] for event in failed] == [stage], [event.why for event in failed]
    assert reason in failed[0].why and "Traceback" not in failed[0].why
    assert "FAILED" in said and failed[0].why.splitlines()[0][:60] in said
    (issue,) = platform.events("trouble", "issue_opened", after=before)
    assert issue.data["owner"] == "nora" and reason in issue.data["title"]
    assert not platform.orrery.due("trouble")


def test_the_next_good_push_of_a_project_that_failed_becomes_a_version(platform: Platform) -> None:
    """What failed before does not stand in its way."""
    before = platform.orrery.timeline.head()[0]
    said = platform.pushed(trouble(platform), "trouble", "mended")
    (trained,) = platform.events("trouble", "trained", after=before)
    assert platform.events("trouble", "gated", after=before)[-1].data["passed"]
    assert f"version {trained.version}" in said
    wait(lambda: platform.orrery.model("trouble").waiting())


def test_a_model_that_exits_on_a_request_is_there_for_the_next(platform: Platform) -> None:
    """The request that kills its process gets a sentence; those after it get answers."""
    killed = platform.ask(moon=999.0)
    assert killed.status_code == 500 and "ended twice while it had these rows" in killed.json()["error"]
    assert platform.ask().status_code == 200
    assert platform.events("tides", "failed", "rolled_back", "retired") == []


def test_a_model_sees_nothing_of_the_platform(platform: Platform) -> None:
    """Its process gets a few harmless variables, and none that says where the database is."""
    serving = next(one.pid for one in processes(platform.settings.home) if one.name == "serving")
    assert serving is not None and "ORRERY_DATABASE" in psutil.Process(serving).environ()
    children = psutil.Process(serving).children(recursive=True)
    hosts = [child for child in children if "orrery.pipeline.host" in " ".join(child.cmdline())]
    assert hosts
    for host in hosts:
        ours = {name for name in host.environ() if name.startswith("ORRERY_")}
        assert {MARK} <= ours <= {MARK, LOADED}, "by which its guardian knows it, and where it says what it imports"


def trouble(platform: Platform, **files: str) -> Path:
    """Return the checkout of the project that fails, written anew."""
    folder = platform.settings.home.parent / "trouble"
    for name in ("orrery.toml", "pipeline.py", "requirements.txt"):
        (folder / name).unlink(missing_ok=True)
    write_project(folder, **{"toml": named("trouble"), **files})
    if "requirements.txt" in files:
        (folder / "requirements.txt").write_text(files["requirements.txt"])
    return folder


# --- 2. pushes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        (None, "has no orrery.toml"),
        (named("bad-push").replace("holdout", "holdoot"), "Did you mean 'holdout'?"),
        (named("other"), "the model is 'other', and this is the repository of 'bad-push'"),
        ("[model", "orrery.toml is not TOML"),
        (named("bad-push").replace("regression", "regresion"), "regresion"),
    ],
    ids=["none", "unknown key", "another name", "not TOML", "unknown task"],
)
def test_a_bad_push_is_refused_with_a_sentence(
    platform: Platform, tmp_path: Path, toml: str | None, sentence: str
) -> None:
    """And nothing of it is stored."""
    before = platform.orrery.timeline.head()[0]
    checkout = write_project(tmp_path / "bad", **({"toml": toml} if toml else {}))
    if toml is None:
        (checkout / "orrery.toml").unlink()
    said = platform.refused(checkout, "bad-push")
    assert sentence in said, said
    assert "bad-push" not in platform.orrery.models() and "bad-push" not in [
        event.model for event in platform.orrery.timeline.read(after=before)
    ]
    bare = platform.settings.home / "repos" / "bad-push.git"
    assert git(bare, "rev-list", "--all") == "" and not [*bare.glob("objects/??/*"), *bare.glob("objects/pack/*")]


def test_another_branch_starts_nothing_and_says_so(platform: Platform) -> None:
    """It is kept."""
    before = platform.orrery.timeline.head("tides")[0]
    said = platform.pushed(platform.tides, "tides", "an idea", branch="idea")
    git(platform.tides, "reset", "-q", "--hard", "HEAD~1")
    assert "idea is kept; only main starts the loop" in said
    assert not platform.events("tides", "pushed", after=before)


def test_two_pushes_at_once(platform: Platform, tmp_path: Path) -> None:
    """One wins, the other is told to pull; in the end both are judged."""
    first = write_project(tmp_path / "one", toml=named("twins"))
    platform.commit(first, "twins", "one")
    second = tmp_path / "two"
    shutil.copytree(first, second)
    for number, checkout in enumerate((first, second)):
        (checkout / f"note-{number}.txt").write_text("mine")
        platform.commit(checkout, "twins", f"of clone {number}")
    pushes = [
        subprocess.Popen(
            ["git", "push", "orrery", "main"], cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for checkout in (first, second)
    ]
    said = [push.communicate(timeout=120)[0] for push in pushes]
    codes = [push.returncode for push in pushes]
    assert sorted(map(bool, codes)) == [False, True], said
    loser = codes.index(max(codes))
    assert "rejected" in said[loser], said[loser]
    checkout = (first, second)[loser]
    told = failing_git(checkout, "push", "orrery", "main")
    assert "git pull" in told
    git(checkout, "pull", "-q", "--no-rebase", "--no-edit", "orrery", "main")
    platform.pushed(checkout, "twins", "both")
    assert len(platform.events("twins", "gated")) == len(platform.events("twins", "pushed")) == 2


def test_a_push_without_its_dataset_waits_for_it(platform: Platform, tmp_path: Path) -> None:
    """It says so at once, and goes on when the data comes."""
    checkout = write_project(tmp_path / "later", toml=named("later", dataset="currents"))
    began = time.monotonic()
    said = platform.pushed(checkout, "later")
    assert "Waits for the dataset currents" in said and "orrery data add currents" in said
    assert "No worker" not in said and time.monotonic() - began < 60
    file = tmp_path / "currents.parquet"
    tides().write_parquet(file)
    done = cli(platform.settings.home, "data", "add", "currents", str(file))
    assert done.returncode == 0, done.stderr
    wait(lambda: platform.events("later", "gated"))


# --- 3. requests and labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/v2/models/tides/infer", b"{", 400, "cannot be read"),
        ("/v2/models/tides/infer", b'{"inputs": []}', 400, "no rows"),
        ("/models/tides/predict", b"[]", 400, "no rows"),
        ("/models/tides/predict", b'{"moon": [1, 2]}', 400, "holds a list"),
        ("/models/tides/predict", b'{"moon": "high", "wind": 1}', 400, "moon"),
        ("/models/tidse/predict", b'{"moon": 1, "wind": 1}', 404, "tidse"),
        ("/v2/models/tides/versions/99/infer", b'{"inputs": []}', 404, "Version 1 of tides answers"),
        ("/nowhere", b"{}", 405, "POST is not understood at /nowhere"),
    ],
)
def test_a_malformed_request_gets_a_sentence(
    platform: Platform, path: str, body: bytes, status: int, sentence: str
) -> None:
    """And the next one is answered."""
    answer = httpx.post(platform.settings.serving_url + path, content=body, timeout=30)
    assert (answer.status_code, sentence in answer.json()["error"]) == (status, True), answer.text
    assert platform.ask().status_code == 200


@pytest.mark.filterwarnings("default")
def test_a_row_that_breaks_the_contract_is_flagged(platform: Platform) -> None:
    """The model answers, and says which column it was."""
    wrong = platform.ask(moon=1e9)
    assert wrong.status_code == 200 and wrong.json()["parameters"]["broken"] == [["moon"]]
    assert "parameters" not in platform.ask().json() or "broken" not in platform.ask().json()["parameters"]


def test_labels_of_every_kind_are_counted(platform: Platform) -> None:
    """New, unknown, duplicate, conflicting; none of them is lost, and the newest known holds."""
    from orrery.data.labels import LabelTable

    log = platform.orrery.lake
    assert platform.ask(gauge="seen").status_code == 200  # a moment ago: it is in the server's journal, not in the log

    def send(*labels: tuple[str, Any]) -> httpx.Response:
        content = {"labels": [{"entity": entity, "label": label} for entity, label in labels]}
        return platform.api("POST", f"{TIDES}/labels", json=content)

    def counts(answer: httpx.Response) -> dict[str, int]:
        assert answer.status_code == 201, answer.text
        return {name: count for name, count in answer.json().items() if count}

    assert counts(send(("seen", 1.5), ("never", 2.0))) == {"new": 1, "unknown": 1}
    assert counts(send(("seen", 1.5))) == {"duplicate": 1}
    assert counts(send(("seen", 1.75))) == {"conflicting": 1}
    known = LabelTable(log, "tides").known(None, platform.orrery.clock.now()).sort("at", "seq")
    assert known.filter(entity="seen")["label"].to_list() == [1.5, 1.75]
    for content in (("seen", None), ("seen", [1])):
        null = send(content)
        assert null.status_code == 422 and "label" in null.json()["error"]["what"]
    for odd in ("high", 10**400):
        assert send(("seen", odd)).status_code == 422
    assert platform.api("POST", f"{TIDES}/labels", content=b'{"labels": [{"entity": "a"}]}').status_code in (415, 422)
    assert platform.api("POST", "/api/models/tidse/labels", json={"labels": []}).status_code == 404
