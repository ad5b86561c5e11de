"""What people order ends on the timeline, with who and why; what is not allowed changes nothing."""

from __future__ import annotations

from orrery.app import Orrery


def test_approve(orrery, opened: Orrery) -> None:
    [told] = orrery("approve", "tides", 3, "--why", "Looks right", "--json").lines()
    assert (told["kind"], told["version"], told["actor"], told["why"]) == ("approved", 3, "mara", "Looks right")
    again = orrery("approve", "tides", 3, "--why", "Once more")
    assert again.code == 1
    assert "No review of version 3 is waiting." in again.err


def test_reject_opens_an_issue_that_status_shows(orrery, opened: Orrery) -> None:
    told = orrery("reject", "tides", 3, "--why", "It drifts at night", "--json").lines()
    assert [one["kind"] for one in told] == ["rejected", "issue_opened"]
    [issue] = orrery("status", "--json").lines()[0]["waiting"]
    assert "It drifts at night" in issue["todo"]
    assert "rejected: It drifts at night" in orrery("versions", "tides").out


def test_rollback_and_retire(orrery, opened: Orrery) -> None:
    assert orrery("rollback", "tides", "--why", "Worse since noon").code == 0
    assert opened.model("tides").champion().number == 1
    assert orrery("retire", "tides", 1, "--why", "The sensor is gone").code == 0
    assert opened.model("tides").champion() is None


def test_promotion_by_hand_says_what_is_lacking(orrery, opened: Orrery) -> None:
    ran = orrery("promote", "tides", 3, "--why", "I like it")
    assert ran.code == 1
    assert "lacks what production needs" in ran.err
    assert "Nothing was changed." in ran.err


def test_deletion_asks_first(orrery, opened: Orrery) -> None:
    asked = orrery("delete", "tides", 1, "--why", "Old")
    assert asked.code == 1
    assert "would be removed" in asked.err
    assert "--yes" in asked.err
    assert opened.model("tides").versions[1].deleted is None
    assert orrery("delete", "tides", 1, "--why", "Old", "--yes").code == 0
    assert opened.model("tides").versions[1].deleted is not None
    in_use = orrery("delete", "tides", 2, "--why", "Old", "--yes")
    assert in_use.code == 1
    assert "in use in production" in in_use.err


def test_models_and_versions_for_scripts(orrery, opened: Orrery) -> None:
    [model] = orrery("models", "--json").lines()
    assert (model["model"], model["champion"], model["versions"], model["reviews"]) == ("tides", 2, 3, 1)
    versions = orrery("versions", "tides", "--json").lines()
    assert [one["version"] for one in versions] == [1, 2, 3]
    assert versions[1]["where"] == {"production": "champion"}
    assert versions[0]["metrics"] == {"absolute_error": 0.5}


def test_status_without_a_running_orrery(orrery, opened: Orrery) -> None:
    [status] = orrery("status", "--json").lines()
    assert (status["pid"], status["processes"]) == (None, [])
    [waiting] = status["waiting"]
    assert waiting["todo"] == 'orrery approve tides 3 --why "..."'
    text = orrery("status").out
    assert "No orrery runs in" in text
    assert "Waiting for people" in text


def test_the_doctor_looks_at_everything(orrery, opened: Orrery) -> None:
    ran = orrery("doctor", "--json")
    names = {line["name"] for line in ran.lines()}
    assert names >= {"python", "git", "uv", "home", "disk", "walls", "port", "serving", "database", "chain", "clock"}
    assert ran.code == 0, ran.out
    (opened.settings.home / "orrery.db").write_bytes(b"this is no database" * 100)
    for name in ("orrery.db-wal", "orrery.db-shm"):
        (opened.settings.home / name).unlink(missing_ok=True)
    sick = orrery("doctor", "--json")
    assert sick.code == 1
    assert [line["name"] for line in sick.lines() if not line["ok"]] == ["database"]


def test_issues(orrery, opened: Orrery) -> None:
    [told] = orrery(
        "issue", "open", "tides", "A gauge is stuck", "--why", "Since noon", "--to", "pia", "--json"
    ).lines()
    id_ = told["data"]["issue"]
    assert orrery("issue", "comment", "tides", id_[:6], "It is the third.", "--version", 2).code == 0
    assert orrery("issue", "assign", "tides", id_, "olaf").code == 0
    [listed] = orrery("issue", "list", "tides", "--json").lines()
    assert (listed["id"], listed["owner"], listed["comments"]) == (id_, "olaf", 1)
    assert "A gauge is stuck" in orrery("issue", "list").out
    assert orrery("issue", "close", "tides", id_, "--why", "Mended").code == 0
    assert orrery("issue", "list", "tides", "--json").lines() == []
    assert orrery("issue", "reopen", "tides", id_, "--why", "Stuck again").code == 0
    assert opened.model("tides").issues[id_].kept
