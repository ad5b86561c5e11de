"""A chain that was cut or written anew fits together; what was noted of it outside finds both."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit.conftest import BUCKET, Authority, certified
from orrery.actions.worker import Worker
from orrery.app import Orrery
from orrery.audit import stamps
from orrery.audit.places import GitPlace, checked, gathered, place, split
from orrery.errors import NotFound, NotUnderstood, OrreryError
from orrery.settings import Settings, load
from orrery.testing.timeline_contract import note
from orrery.timeline.anchor import Anchor, from_line
from orrery.timeline.event import GENESIS, hash_of
from orrery.timeline.verify import verify

AT = datetime(2026, 3, 3, 12, tzinfo=UTC)


def anchor(seq: int = 7, mark: str = "a") -> Anchor:
    return Anchor(seq=seq, hash=mark * 64, at=AT)


@pytest.fixture
def opened(home: Settings) -> Orrery:
    orrery = Orrery(home)
    orrery.timeline.append([note(f"event {number}") for number in range(6)])
    return orrery


def chain(orrery: Orrery) -> list[dict[str, Any]]:
    return [event.to_json() for event in orrery.timeline.read()]


def rewritten(events: list[dict[str, Any]], place: int) -> list[dict[str, Any]]:
    """Change one event and make everything after it fit: what somebody with the files can do."""
    prev, made = GENESIS, []
    for number, event in enumerate(events):
        one = {**event, "prev_hash": prev}
        if number == place:
            one["why"] = "nothing happened here"
        one["hash"] = prev = hash_of(one)
        made.append(one)
    return made


# --- what anchors are for ----------------------------------------------------------------------------------------


def test_what_the_chain_alone_cannot_tell(opened: Orrery, tmp_path: Path) -> None:
    place_ = str(tmp_path / "outside")
    (outcome,) = opened.anchoring.anchor([place_])
    assert outcome.event is not None and outcome.event.data["seq"] == 6
    opened.timeline.append([note("later")])
    whole, noted = chain(opened), gathered([place_])
    verdict = verify(whole, anchors=noted, sources=[place_])
    assert verdict.holds and verdict.anchored == 6 and verdict.events == 8
    for forged in (whole[:5], rewritten(whole, 2), rewritten(whole, 0)):
        assert verify(forged).holds  # it fits together
        assert not verify(forged, anchors=noted, sources=[place_]).holds
    assert "cut off" in verify(whole[:5], anchors=noted).faults[0]
    assert "written anew" in verify(rewritten(whole, 2), anchors=noted).faults[0]
    # What came after the newest anchor is only protected by the next one: it is said, not promised.
    assert verify(rewritten(whole, 7), anchors=noted, sources=[place_]).holds


def test_an_anchor_that_was_removed_outside_is_missed(opened: Orrery, tmp_path: Path) -> None:
    place_ = str(tmp_path / "outside")
    opened.anchoring.anchor([place_])
    opened.timeline.append([note("later")])
    opened.anchoring.anchor([place_])
    first, _ = sorted((tmp_path / "outside").iterdir())
    first.unlink()
    noted = gathered([place_])
    assert len(noted) == 1 and verify(chain(opened), anchors=noted).holds
    (fault,) = verify(chain(opened), anchors=noted, sources=[place_]).faults
    assert "it was removed" in fault


# --- places ------------------------------------------------------------------------------------------------------


def test_a_folder_takes_each_anchor_once(tmp_path: Path) -> None:
    folder = place(str(tmp_path / "outside"))
    folder.put(anchor())
    folder.put(anchor())
    folder.put(anchor(8, "b"))
    assert folder.read() == [anchor(), anchor(8, "b")]
    (first, _) = sorted((tmp_path / "outside").iterdir())
    first.write_text(anchor(7, "c").to_line())
    with pytest.raises(OrreryError, match="another anchor"):
        folder.put(anchor())
    assert from_line(first.read_text()) == anchor(7, "c")
    with pytest.raises(NotFound):
        place(str(tmp_path / "nowhere")).read()
    assert not (tmp_path / "nowhere").exists()


def test_a_bucket_keeps_what_it_was_given(bucket: Any) -> None:
    store = place(f"s3://{BUCKET}/orrery")
    store.put(anchor())
    store.put(anchor())
    (one,) = bucket.list_object_versions(Bucket=BUCKET)["Versions"]  # nothing was written a second time
    assert bucket.head_object(Bucket=BUCKET, Key=one["Key"])["ObjectLockMode"] == "COMPLIANCE"
    with pytest.raises(bucket.exceptions.ClientError, match="AccessDenied"):
        bucket.delete_object(Bucket=BUCKET, Key=one["Key"], VersionId=one["VersionId"])
    assert store.read() == [anchor()]
    bucket.put_object(Bucket=BUCKET, Key=one["Key"], Body=anchor(7, "c").to_line())
    with pytest.raises(OrreryError, match="another anchor"):
        store.put(Anchor(seq=7, hash="a" * 64, at=AT))
    with pytest.raises(OrreryError, match="does not take part"):
        place("s3://nobody-made-this").put(anchor())


def test_a_branch_gets_a_line_for_each_anchor_and_a_file_for_each_day(repository: Path, tmp_path: Path) -> None:
    address = f"git+file://{repository}"
    there = place(address, tmp_path / "work")
    there.put(anchor())
    there.put(anchor())
    later = Anchor(seq=9, hash="b" * 64, at=AT + timedelta(days=1))
    place(address, tmp_path / "elsewhere").put(later)  # another machine is faster
    third = Anchor(seq=11, hash="c" * 64, at=AT + timedelta(days=1))
    there.put(third)
    assert place(address).read() == [anchor(), later, third]

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, check=True)
        return done.stdout

    assert git("ls-tree", "--name-only", "anchors").split() == ["2026-03-03.jsonl", "2026-03-04.jsonl"]
    assert git("rev-list", "--count", "anchors").strip() == "3"
    # Who takes a line away in a later commit leaves it in the history, where it is found.
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "-b", "anchors", str(repository), str(clone)], check=True)
    (clone / "2026-03-04.jsonl").write_text(third.to_line() + "\n")
    said = ["-c", "user.name=m", "-c", "user.email=m@example.org"]
    subprocess.run(["git", "-C", str(clone), *said, "commit", "-qam", "tidy"], check=True)
    subprocess.run(["git", "-C", str(clone), "push", "-q"], check=True)
    assert later in place(address).read()
    # Who forces the branch back removes it from there; the chain says what it put.
    git("update-ref", "refs/heads/anchors", git("rev-list", "--max-parents=0", "anchors").strip())
    assert place(address).read() == [anchor()]


def test_nothing_that_a_repository_holds_is_run(repository: Path, tmp_path: Path) -> None:
    there = GitPlace(f"file://{repository}", tmp_path / "work")
    there.put(anchor())
    (clone,) = (tmp_path / "work").glob("*/clone")
    hook = clone / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    there.put(anchor(8, "b"))
    assert not (tmp_path / "ran").exists() and len(there.read()) == 2


def test_addresses_that_cannot_be_one() -> None:
    assert list(split(" s3://a/b  git+ssh://git@h/r s3://a/b")) == ["s3://a/b", "git+ssh://git@h/r"]
    for text in ("http://host/x", "ftp://host", "git+https://mara:secret@host/r.git", "tsa+https://a:b@host"):
        with pytest.raises(NotUnderstood) as told:
            checked(text)
        assert "secret" not in str(told.value)
    with pytest.raises(NotUnderstood, match="keeps none"):
        place("tsa+https://host")


def test_a_file_of_anchors_is_a_place_to_read_from(tmp_path: Path) -> None:
    file = tmp_path / "anchors.jsonl"
    file.write_text(f"{anchor().to_line()}\n{anchor(8).to_line()}\n")
    assert gathered([str(file)]) == [anchor(), anchor(8)]
    file.write_text('{"seq": "many"}\n')
    with pytest.raises(NotUnderstood, match="not an anchor"):
        gathered([str(file)])


# --- time stamps -------------------------------------------------------------------------------------------------


def test_a_stamp_is_of_the_hash_itself(opened: Orrery, authority: Authority, tmp_path: Path) -> None:
    folder = str(tmp_path / "outside")
    outcomes = opened.anchoring.anchor([folder, authority.address])
    assert authority.asked == 1 and all(one.event is not None for one in outcomes)
    (kept,) = gathered([folder])
    assert list(kept.stamps) == [authority.address]  # it lies beside the anchor, outside
    trusted = stamps.roots(authority.certificate)
    assert stamps.check(kept, trusted) == []
    told = verify(chain(opened)).told
    assert len(told) == 2 and all(one.stamps and stamps.check(one, trusted) == [] for one in told)
    # Anybody can check it without orrery.
    token = tmp_path / "token"
    token.write_bytes(base64.b64decode(kept.stamps[authority.address]))
    words = ["openssl", "ts", "-verify", "-digest", kept.hash, "-in", str(token), "-CAfile", str(authority.certificate)]
    assert subprocess.run(words, capture_output=True).returncode == 0


def test_a_stamp_of_something_else_does_not_hold(opened: Orrery, authority: Authority, tmp_path: Path) -> None:
    opened.anchoring.anchor([str(tmp_path / "outside"), authority.address])
    (kept,) = gathered([str(tmp_path / "outside")])
    trusted, (token,) = stamps.roots(authority.certificate), kept.stamps.values()

    def fault(**changed: Any) -> str:
        fields = {"seq": kept.seq, "hash": kept.hash, "at": kept.at, "stamps": kept.stamps, **changed}
        return " ".join(stamps.check(Anchor(**fields), trusted))

    assert fault() == ""
    assert "does not hold" in fault(hash="b" * 64)
    assert "the stamp" in fault(at=kept.at - timedelta(days=200))  # a past that was invented later
    assert "base64" in fault(stamps={"x": "%"}) and "no time stamp" in fault(stamps={"x": "aGFsbG8="})
    body = bytearray(base64.b64decode(token))
    body[-20] ^= 1  # in the signature
    assert "does not hold" in fault(stamps={"x": base64.b64encode(bytes(body)).decode()})
    other = certified(tmp_path / "other") / "ca.pem"
    assert "does not hold" in " ".join(stamps.check(kept, stamps.roots(other)))
    with pytest.raises(NotUnderstood, match="PEM"):
        stamps.roots(tmp_path / "outside")


def test_an_authority_that_answers_with_another_stamp_is_not_believed(opened: Orrery, authority: Authority) -> None:
    first, *_, last = opened.timeline.read()
    authority.answers = base64.b64decode(stamps.stamp(authority.address, first))
    with pytest.raises(OrreryError, match="something else"):
        stamps.stamp(authority.address, last)
    with pytest.raises(OrreryError, match="something else"):  # the same hash, but the answer to another question
        stamps.stamp(authority.address, first)
    authority.answers = b"hello"
    with pytest.raises(OrreryError, match="no time stamp"):
        stamps.stamp(authority.address, last)


# --- again and again ---------------------------------------------------------------------------------------------


def test_what_does_not_take_part_is_an_issue_once_and_closes(opened: Orrery, tmp_path: Path) -> None:
    address = f"git+file://{tmp_path}/late.git"
    for _ in range(2):
        (outcome,) = opened.anchoring.anchor([address])
        assert outcome.event is None and "does not take part" in outcome.fault
    (issue,) = opened.states.data().issues.values()
    assert issue.closed is None and opened.anchoring.failing(address)
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "late.git")], check=True)
    opened.anchoring.anchor([address])
    (issue,) = opened.states.data().issues.values()
    assert issue.closed is not None and not opened.anchoring.failing(address)
    assert opened.states.data().anchors[address].seq == 7  # the issue is the seventh event
    opened.states.rebuild()
    assert opened.states.data().anchors[address].seq == 7


def test_one_that_fails_keeps_the_others_from_nothing(opened: Orrery, authority: Authority, tmp_path: Path) -> None:
    authority.answers = b"nonsense"
    good = str(tmp_path / "outside")
    outcomes = opened.anchoring.anchor([authority.address, f"git+file://{tmp_path}/no.git", good])
    assert [bool(one.fault) for one in outcomes] == [True, True, False]
    assert len(opened.states.data().issues) == 2 and gathered([good])[0].stamps == {}


def test_an_address_with_a_password_reaches_no_event_and_no_start(
    opened: Orrery, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import sys

    address, before = "git+https://mara:s3cret-word@example.org/r.git", opened.timeline.head()
    with pytest.raises(NotUnderstood, match="password"):
        opened.anchoring.anchor([address])
    assert opened.timeline.head() == before
    env = {**os.environ, "ORRERY_HOME": str(opened.settings.home), "ORRERY_ANCHORS": address}
    words = [sys.executable, "-m", "orrery.cli.main", "up"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "password" in done.stderr and "s3cret-word" not in done.stdout + done.stderr


def test_it_is_due_when_the_head_moved_and_the_time_has_come(opened: Orrery, tmp_path: Path) -> None:
    place_, day = str(tmp_path / "outside"), 86400.0
    now = opened.clock.now()
    assert opened.anchoring.due([place_], now, day) == [place_]
    opened.anchoring.anchor([place_])
    now = opened.clock.now()
    assert opened.anchoring.due([place_], now + timedelta(days=2), day) == []  # only the anchor itself happened
    opened.timeline.append([note("news")])
    assert opened.anchoring.due([place_], now, day) == []
    assert opened.anchoring.due([place_], now + timedelta(days=2), day) == [place_]
    with pytest.raises(NotFound):
        Orrery(load(tmp_path / "fresh")).anchoring.anchor([place_])


def test_a_worker_does_it_and_waits_for_nobody(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_ = str(tmp_path / "outside")
    monkeypatch.setenv("ORRERY_ANCHORS", f"{place_} git+file://{tmp_path}/no.git")
    monkeypatch.setenv("ORRERY_ANCHOR_EVERY", "1s")
    monkeypatch.setenv("ORRERY_HOME", str(home.home))
    orrery = Orrery(load(home.home))
    assert orrery.settings.environment()["ORRERY_ANCHORS"] == f"{place_} git+file://{tmp_path}/no.git"
    orrery.timeline.append([note("first")])
    worker, slow = Worker(orrery, "worker-1"), threading.Event()
    kept = orrery.anchoring.anchor
    monkeypatch.setattr(orrery.anchoring, "anchor", lambda due: (slow.wait(60), kept(due)))
    worker._anchor()
    assert worker._anchoring is not None and worker._anchoring.is_alive()  # and we are here
    worker._anchor()
    slow.set()
    worker._anchoring.join()
    assert [one.seq for one in gathered([place_])] == [1]
    (issue,) = orrery.states.data().issues.values()
    assert "no.git" in issue.title
    for wrong in ("0s", "often"):
        monkeypatch.setenv("ORRERY_ANCHOR_EVERY", wrong)
        with pytest.raises(NotUnderstood):
            load(home.home)


def test_what_an_anchor_is_in_the_log_never_breaks_a_check() -> None:
    events = [{"seq": 1, "kind": "anchored", "data": {"seq": "x"}, "prev_hash": GENESIS}]
    events[0]["hash"] = hash_of(events[0])
    (fault,) = verify(events).faults
    assert "cannot be read" in fault
    assert json.loads(anchor().to_line())["seq"] == 7


def test_a_worker_process_anchors_by_itself_while_events_come(home: Settings, tmp_path: Path) -> None:
    import os
    import sys
    import time

    from orrery.settings import SETTINGS

    orrery, place_ = Orrery(home), str(tmp_path / "outside")
    orrery.timeline.append([note("first")])
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    env = {**clean, "ORRERY_HOME": str(home.home), "ORRERY_ANCHORS": place_, "ORRERY_ANCHOR_EVERY": "1s"}
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-m", "orrery.actions", "worker-1"], env=env, stdout=log, stderr=log)
    try:

        def anchored(seq: int) -> None:
            until = time.monotonic() + 120
            while not (tmp_path / "outside").is_dir() or max(one.seq for one in gathered([place_])) < seq:
                assert worker.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
                time.sleep(0.2)

        anchored(1)
        (event,) = orrery.timeline.append([note("second")])
        anchored(event.seq)
    finally:
        worker.terminate()
        worker.wait(60)
    noted = gathered([place_])
    assert verify(chain(orrery), anchors=noted, sources=[place_]).holds
    assert not verify(rewritten(chain(orrery), 0), anchors=noted).holds
