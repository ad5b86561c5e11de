"""What happened, as people and scripts read it; and that tampering is found without a server."""

from __future__ import annotations

import json
from pathlib import Path

from orrery.app import Orrery

KEYS = [
    *("seq", "id", "occurred_at", "recorded_at", "model", "version", "environment"),
    *("kind", "actor", "why", "data", "prev_hash", "hash"),
]


def test_json_has_the_promised_keys_in_order(orrery, opened: Orrery) -> None:
    ran = orrery("timeline", "tides", "--json")
    assert ran.code == 0
    assert len(ran.lines()) == len(list(opened.timeline.read("tides")))
    assert all(list(line) == KEYS for line in ran.lines())


def test_text_leaves_small_things_out_and_says_so(orrery, opened: Orrery) -> None:
    ran = orrery("timeline", "tides")
    assert "watched" not in ran.out
    assert "1 looks and other small things left out" in ran.err
    assert "watched" in orrery("timeline", "tides", "--all").out


def test_only_what_was_asked_for(orrery, opened: Orrery) -> None:
    assert {line["version"] for line in orrery("timeline", "tides", "--version", 2, "--json").lines()} == {2}
    promoted = orrery("timeline", "tides", "--kind", "promoted", "--json").lines()
    assert [line["version"] for line in promoted] == [1, 2]
    newest = orrery("timeline", "tides", "--kind", "promoted", "--limit", 1, "--json").lines()
    assert [line["version"] for line in newest] == [2]
    wrong = orrery("timeline", "tides", "--kind", "promotd")
    assert wrong.code == 1
    assert "Did you mean promoted?" in wrong.err


def test_at_says_what_answered_where_and_why_deleted_versions_included(orrery, opened: Orrery) -> None:
    assert orrery("delete", "tides", 1, "--why", "Trained on the wrong feed", "--yes").code == 0
    [then] = orrery("timeline", "tides", "--at", "2024-01-15", "--json").lines()
    assert (then["environment"], then["version"], then["reason"]) == ("production", 1, "push")
    assert then["since"] == "2024-01-10T05:00:00.000000Z"
    assert then["deleted"]["why"] == "Trained on the wrong feed"
    assert then["deleted"]["by"] == "mara"
    text = orrery("timeline", "tides", "--at", "2024-01-15").out
    assert text.startswith("production: v1 since 2024-01-10 05:00, because push -> redesign")
    assert "Trained on the wrong feed" in text
    [now] = orrery("timeline", "tides", "--at", "2024-01-25", "--json").lines()
    assert (now["version"], now["deleted"]) == (2, None)
    assert orrery("timeline", "tides", "--at", "2023-01-01", "--json").lines() == []
    assert "Wrong feed".lower() in orrery("timeline", "tides", "--deleted").out.lower()


def test_why_tells_the_chain_of_evidence_and_names_its_events(orrery, opened: Orrery) -> None:
    told = orrery("why", "tides")
    assert told.code == 0 and told.out.startswith("Version 2 of tides answers in production since")
    assert "It answers in production. For the test." in told.out
    [whole] = orrery("why", "tides", 1, "--json").lines()
    assert whole["version"] == 1 and {"at", "what", "says", "actor", "numbers", "events"} == set(whole["links"][0])
    seqs = {event.seq for event in opened.timeline.read()}
    assert all(seqs.issuperset(link["events"]) for link in whole["links"])
    missing = orrery("why", "tides", 99)
    assert missing.code == 1 and "no version 99" in missing.err


def test_an_instant_that_is_none(orrery, opened: Orrery) -> None:
    ran = orrery("timeline", "tides", "--at", "yesterday")
    assert ran.code == 1
    assert "Write 2013-06-10" in ran.err


def test_an_event_keeps_its_own_time(orrery, opened: Orrery) -> None:
    [told] = orrery("event", "tides", "Spring tide", "--at", "2024-01-12", "--json").lines()
    assert (told["kind"], told["why"], told["actor"]) == ("business", "Spring tide", "mara")
    assert told["occurred_at"] == "2024-01-12T00:00:00.000000Z"


def test_the_whole_chain_is_exported_and_holds(orrery, opened: Orrery, tmp_path: Path) -> None:
    opened.append([])
    orrery("event", "tides", "Something")
    export = tmp_path / "chain.jsonl"
    export.write_text(orrery("timeline", "--json").out)
    head = opened.timeline.head()[1]
    elsewhere = {"ORRERY_HOME": str(tmp_path / "nowhere")}
    ran = orrery("verify", export, "--head", head, **elsewhere)
    assert ran.code == 0, ran.err
    assert head in ran.out
    assert orrery("verify", "--json").lines() == [
        {"holds": True, "events": opened.timeline.head()[0], "head": head, "anchors": 0, "anchored": 0, "faults": []}
    ]


def test_tampering_is_found(orrery, opened: Orrery, tmp_path: Path) -> None:
    lines = orrery("timeline", "--json").out.splitlines()
    head = opened.timeline.head()[1]
    changed = json.loads(lines[3])
    changed["why"] = "Nothing to see."
    damaged = {
        "changed": [*lines[:3], json.dumps(changed), *lines[4:]],
        "removed": [*lines[:3], *lines[4:]],
        "moved": [*lines[:3], lines[4], lines[3], *lines[5:]],
        "put in": [*lines[:3], lines[2], *lines[3:]],
        "cut": lines[:-1],
    }
    for name, content in damaged.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(content))
        ran = orrery("verify", file, "--head", head, "--json")
        assert (ran.code, ran.lines()[0]["holds"]) == (1, False), name
        assert ran.lines()[0]["faults"], name


def test_a_file_that_is_not_there_or_not_json(orrery, tmp_path: Path) -> None:
    assert orrery("verify", tmp_path / "none").code == 1
    (tmp_path / "text").write_text("hello")
    ran = orrery("verify", tmp_path / "text")
    assert ran.code == 1
    assert "Line 1 of text is not JSON" in ran.err
