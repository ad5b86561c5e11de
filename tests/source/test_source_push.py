"""Real git against a real server: what is taken, what is refused, and what a push says."""

from __future__ import annotations

import base64
import gzip
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import psutil
import pytest

from orrery.source.git import Source, announce, record_push
from orrery.timeline.event import Draft


def test_a_push_makes_the_repository_and_its_event(address, source, timeline, clone):
    mine = clone()
    commit = mine.commit("Heights of the tide\n\nAnd why.")
    done = mine.git("-c", "http.extraHeader=X-Orrery-Actor: nora", "push", f"{address}/tides.git", "main")
    assert f"remote: orrery: tides @ {commit[:7]}   http://127.0.0.1:8700/tides/commits/{commit[:7]}" in done.stderr
    assert "No worker is running" in done.stderr
    (event,) = timeline.read()
    assert (event.kind, event.model, event.actor, event.data["commit"]) == ("pushed", "tides", "nora", commit)
    assert event.why == "Pushed to main: Heights of the tide"
    assert event.data["author"].startswith("Nora") and event.data["branch"] == "main"
    assert event.data["spec"]["model"]["target"] == "height"
    assert source.tip("tides") == commit and source.names() == ["tides"]

    mine.git("push", f"{address}/tides.git", "main")  # the same again is nothing
    assert len(list(timeline.read())) == 1


def test_going_back_and_forth_is_a_push_each(address, timeline, clone):
    mine = clone()
    first = mine.commit()
    mine.git("push", f"{address}/tides.git", "main")
    second = mine.commit("Second")
    basic = base64.b64encode(b"li:secret").decode()
    for tip in (second, first, second):
        mine.git("reset", "-q", "--hard", tip)
        mine.git("-c", f"http.extraHeader=Authorization: Basic {basic}", "push", "-f", f"{address}/tides.git", "main")
    events = list(timeline.read("tides"))
    assert [event.data["commit"] for event in events] == [first, second, first, second]
    assert [event.actor for event in events] == ["git", "li", "li", "li"]


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (None, "has no orrery.toml"),
        (b"[model]\nname = ", "orrery.toml"),
        (b'[model]\nname = "waves"\ntask = "regression"\ntarget = "height"\n[data]\na = "a"\n', "is 'waves'"),
        (b'[model]\nname = "tides"\ntask = "regression"\ntargt = "height"\n[data]\na = "a"\n', "target"),
        (b"\xff\xfe", "not UTF-8"),
        (b"#" * 300_000, "the most that is read"),
    ],
)
def test_a_project_that_cannot_be_read_is_refused_in_words(address, source, timeline, clone, write, said):
    mine = clone()
    (mine.folder / "orrery.toml").unlink()
    if write is not None:
        mine.write("orrery.toml", write)
    mine.commit()
    done = mine.git("push", f"{address}/tides.git", "main", ok=False)
    assert done.returncode != 0 and "remote: orrery: " in done.stderr and said in done.stderr
    assert "Traceback" not in done.stderr and "Nothing was changed." in done.stderr
    assert source.tip("tides") is None and list(timeline.read()) == []


def test_a_linked_project_file_and_other_refs_are_refused(address, timeline, clone):
    mine = clone()
    (mine.folder / "orrery.toml").unlink()
    (mine.folder / "orrery.toml").symlink_to("/etc/hostname")
    mine.commit()
    assert "not a plain file" in mine.git("push", f"{address}/tides.git", "main", ok=False).stderr
    assert "neither a branch" in mine.git("push", f"{address}/tides.git", "main:refs/notes/x", ok=False).stderr
    assert list(timeline.read()) == []


def test_other_branches_are_kept_and_start_nothing_and_main_stays(address, source, timeline, clone):
    mine = clone()
    commit = mine.commit()
    done = mine.git("push", f"{address}/tides.git", "main:draft")
    assert "remote: orrery: draft is kept; only main starts the loop." in done.stderr
    assert list(timeline.read()) == [] and source.tip("tides", "draft") == commit
    mine.git("push", f"{address}/tides.git", "main")
    done = mine.git("push", f"{address}/tides.git", ":main", ok=False)
    assert done.returncode != 0 and "cannot be removed" in done.stderr
    mine.git("push", f"{address}/tides.git", ":draft")
    assert source.tip("tides") == commit and source.tip("tides", "draft") is None


def test_large_pushes_and_clones_pass_through(address, source, clone, tmp_path):
    mine = clone()
    content = os.urandom(30_000_000)
    mine.write("large.bin", content)
    commit = mine.commit()
    mine.git("push", f"{address}/tides.git", "main")
    mine.git("clone", "-q", f"{address}/tides", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "large.bin").read_bytes() == content
    traced = subprocess.run(
        ["git", "ls-remote", f"{address}/tides.git"],
        env={**os.environ, "GIT_TRACE_PACKET": "1"},
        capture_output=True,
        text=True,
    )
    assert "version 2" in traced.stderr and commit in traced.stdout


def test_compressed_requests_are_understood(address, clone):
    mine = clone()
    mine.commit()
    mine.git("push", f"{address}/tides.git", "main")
    body = gzip.compress(b"0014command=ls-refs\n00010000")
    response = httpx.post(
        f"{address}/tides.git/git-upload-pack",
        content=body,
        headers={
            "content-type": "application/x-git-upload-pack-request",
            "content-encoding": "gzip",
            "git-protocol": "version=2",
        },
    )
    assert response.status_code == 200 and b"refs/heads/main" in response.content


@pytest.mark.parametrize(
    "path",
    [
        "/tides.git/HEAD",
        "/tides.git/config",
        "/tides.git/objects/info/packs",
        "/tides.git/info/refs",
        "/tides.git/info/refs?service=git-upload-archive",
        "/absent.git/info/refs?service=git-upload-pack",
        "/..%2f..%2fetc/info/refs?service=git-receive-pack",
        "/%2e%2e/info/refs?service=git-receive-pack",
        "/UPPER.git/info/refs?service=git-receive-pack",
        "/.git/info/refs?service=git-receive-pack",
        "/a%00b.git/info/refs?service=git-receive-pack",
    ],
)
def test_only_the_smart_protocol_and_only_names(address, source, path):
    source.create("tides")
    with httpx.Client() as http:
        response = http.get(httpx.URL(address).copy_with(raw_path=b"/git" + path.encode()))
    assert response.status_code == 404, response.text
    assert source.names() == ["tides"]


def test_two_at_once_one_wins_and_nothing_is_lost(address, source, timeline, clone):
    clones = [clone(f"clone{number}") for number in range(4)]
    commits = [mine.commit(f"Number {number}") for number, mine in enumerate(clones)]
    done: list[subprocess.CompletedProcess[str]] = []

    def push(mine) -> None:
        done.append(mine.git("push", f"{address}/tides.git", "main", ok=False))

    threads = [threading.Thread(target=push, args=(mine,)) for mine in clones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.returncode for one in done) == [0, 1, 1, 1], [one.stderr for one in done]
    (event,) = timeline.read()
    assert event.data["commit"] == source.tip("tides") in commits


def test_pushes_to_many_repositories_at_once(address, timeline, clone):
    def push(number: int) -> None:
        mine = clone(f"clone{number}")
        spec = (mine.folder / "orrery.toml").read_text().replace('name = "tides"', f'name = "tides-{number}"')
        mine.write("orrery.toml", spec)
        mine.commit()
        mine.git("push", f"{address}/tides-{number}.git", "main")

    threads = [threading.Thread(target=push, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert timeline.models() == [f"tides-{number}" for number in range(5)]
    assert [event.seq for event in timeline.read()] == [1, 2, 3, 4, 5]


def test_what_git_brings_is_never_run(address, source, clone, tmp_path, home):
    mine = clone()
    trap = tmp_path / "sprung"
    script = f"#!/bin/sh\ntouch {trap}\n"
    for path in ("hooks/post-checkout", ".githooks/pre-receive", "post-checkout"):
        mine.write(path, script)
        (mine.folder / path).chmod(0o755)
    mine.write(".gitattributes", "*.toml filter=evil diff=evil merge=evil\n")
    mine.write(".gitconfig", f'[filter "evil"]\n smudge = touch {trap}\n[core]\n fsmonitor = touch {trap}\n')
    first = mine.commit()
    mine.git("push", f"{address}/tides.git", "main")
    mine.write("orrery.toml", (mine.folder / "orrery.toml").read_text() + "# more\n")
    second = mine.commit("Second")
    mine.git("push", f"{address}/tides.git", "main")
    source.checkout("tides", second)
    assert "# more" in source.diff("tides", first, second)
    assert not trap.exists()


@pytest.mark.parametrize("quiet", [20], indirect=True)
def test_progress_is_told_until_the_candidate_is_judged(address, timeline, clone):
    mine = clone()
    commit = mine.commit()

    def work() -> None:
        deadline = time.monotonic() + 20
        while not list(timeline.read("tides")) and time.monotonic() < deadline:
            time.sleep(0.05)

        def tell(kind: str, why: str, version: int | None = None, **data: object) -> None:
            timeline.append([Draft(kind=kind, actor="w", why=why, model="tides", version=version, data=data)])

        tell("built", "Locked.", commit=commit, cached=True, seconds=0.1, packages=12)
        tell("tested", "Tests.", commit=commit, passed=14, seconds=3.2)
        tell("trained", "Other.", version=6, commit="f" * 40, run="other", seconds=9.9)
        tell("triggered", "A push.", run="r1", commit=commit)
        tell("trained", "New.", version=7, commit=commit, run="r1", data={"tides": 41}, seconds=4.3)
        verdict = {"verdict": "passed", "why": "0.512, better by 0.007", "numbers": {}}
        tell("gated", "Good.", version=7, passed=True, gates={"log_loss": verdict})
        tell("review_requested", "Waiting for review.", version=7, role="quality")

    worker = threading.Thread(target=work)
    worker.start()
    lines = [
        line.removeprefix("remote: ").rstrip()
        for line in mine.git("push", f"{address}/tides.git", "main").stderr.splitlines()
    ]
    worker.join()
    told = [line for line in lines if line.startswith("  ")]
    assert [line.split()[0] for line in told] == ["environment", "tests", "train", "gates", "version"]
    assert "locked, cached" in told[0] and told[0].endswith("0.1 s")
    assert "14 passed" in told[1] and "tides@v41" in told[2] and "log_loss ok: 0.512" in told[3]
    assert "Waiting for review." in told[4] and not any("Other" in line or "9.9" in line for line in lines)


@pytest.mark.parametrize("quiet", [600], indirect=True)
def test_a_client_that_goes_stops_nothing(address, timeline, clone, home):
    mine = clone()
    commit = mine.commit()
    process = subprocess.Popen(
        ["git", "push", f"{address}/tides.git", "main"],
        cwd=mine.folder,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while not list(timeline.read("tides")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # as when a terminal is closed
    process.wait()

    def following() -> bool:
        found = psutil.process_iter(["cmdline", "environ"])
        ours = [one.info for one in found if (one.info["environ"] or {}).get("ORRERY_HOME") == str(home.home)]
        return any("orrery.source.hooks" in (one["cmdline"] or ()) for one in ours)

    assert following()
    while time.monotonic() < deadline and following():
        time.sleep(0.2)
    assert not following()
    assert [event.data["commit"] for event in timeline.read("tides")] == [commit]


def test_a_push_survives_a_database_that_is_away(address, source, timeline, clone, home):
    mine = clone()
    first = mine.commit()
    mine.git("push", f"{address}/tides.git", "main")
    assert announce(source, timeline) == []
    second = mine.commit("Second")
    timeline.engine.dispose()
    database = home.home / "orrery.db"
    away = database.with_name("away.db")
    database.rename(away)
    database.mkdir()
    done = mine.git("push", f"{address}/tides.git", "main")
    assert "The push is kept" in done.stderr and "Traceback" not in done.stderr
    database.rmdir()
    away.rename(database)
    assert [event.data["commit"] for event in timeline.read("tides")] == [first]
    (told,) = announce(source, timeline)
    assert (told.data["commit"], told.actor) == (second, "orrery/source")
    assert announce(source, timeline) == []
    again = record_push(Source(home), timeline, "tides", first, second, "nora")
    assert again == told


def test_the_check_before_a_push_is_light():
    code = (
        "import sys, resource; from orrery.source import hooks; import orrery.spec; "
        "print(sorted({'sqlalchemy', 'mlflow', 'fastapi'} & set(sys.modules)), "
        "resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    )
    taken = []
    for _ in range(3):
        said = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
        modules, _, seconds = said.strip().rpartition(" ")
        assert modules == "[]"
        taken.append(float(seconds))
    assert min(taken) < 0.15
