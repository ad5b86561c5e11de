"""Anchors and their check, as a person does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Command
from orrery.app import Orrery
from orrery.timeline.event import GENESIS, hash_of


def rewrite(file: Path) -> None:
    """Change the third event of an exported chain, and everything after it so that it fits."""
    events, prev = [json.loads(line) for line in file.read_text().splitlines()], GENESIS
    events[2]["why"] = "It passed all gates."
    for event in events:
        event["prev_hash"] = prev
        event["hash"] = prev = hash_of(event)
    file.write_text("".join(f"{json.dumps(event)}\n" for event in events))


@pytest.mark.usefixtures("opened")
def test_a_chain_that_was_written_anew_is_found_by_its_anchors(orrery: Command, tmp_path: Path) -> None:
    place, file = tmp_path / "outside", tmp_path / "chain.jsonl"
    assert orrery("anchor", "list").out == ""
    (told,) = orrery("anchor", "now", place, "--json").lines()
    assert told["event"]["kind"] == "anchored" and told["event"]["actor"] == "mara"
    assert orrery("verify", "--anchors", place).code == 0
    assert orrery("audit", "export", file).code == 0
    whole = file.read_text()
    held = orrery("verify", file, "--anchors", place)
    assert held.code == 0 and "all 1 anchors" in held.out
    rewrite(file)
    assert orrery("verify", file).code == 0  # it fits together
    forged = orrery("verify", file, "--anchors", place)
    assert forged.code == 1 and "written anew" in forged.out
    file.write_text("".join(whole.splitlines(keepends=True)[:5]))
    (cut,) = orrery("verify", file, "--anchors", place, "--json").lines() or [{}]
    assert cut["holds"] is False and "cut off" in cut["faults"][0]
    # The anchors themselves can be kept by hand, too.
    kept = tmp_path / "anchors.jsonl"
    kept.write_text(orrery("anchor", "list", "--json").out)
    assert orrery("verify", "--anchors", kept).code == 0
    assert orrery("verify", file, "--anchors", kept).code == 1


@pytest.mark.usefixtures("opened")
def test_what_is_no_place_and_what_does_not_answer(orrery: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = orrery("verify", "--anchors", tmp_path / "empty")
    assert nothing.code == 1 and "no anchor at" in nothing.out
    assert orrery("verify", "--anchors", tmp_path / "nowhere").code == 1
    assert orrery("anchor", "now").code == 1
    assert "password" in orrery("anchor", "now", "git+https://a:b@example.org/r.git").err
    away = orrery("anchor", "now", f"git+file://{tmp_path}/no.git", tmp_path / "outside", "--json")
    assert away.code == 1 and [bool(one["fault"]) for one in away.lines()] == [True, False]
    (issue,) = [one for one in orrery("issue", "list", "--json").lines() if not one["model"]]
    assert "no.git" in issue["title"] and orrery("issue", "list").out.count("no.git") == 1
    unstamped = orrery("verify", "--anchors", tmp_path / "outside", "--ca", tmp_path / "outside")
    assert unstamped.code == 1 and "PEM" in unstamped.err


def test_the_setting_names_the_places(orrery: Command, opened: Orrery, tmp_path: Path) -> None:
    place = str(tmp_path / "outside")
    (told,) = orrery("anchor", "now", "--json", ORRERY_ANCHORS=place).lines()
    assert told["target"] == place and opened.states.data().anchors[place].seq == told["event"]["data"]["seq"]
    assert orrery("anchor", "now", ORRERY_ANCHOR_EVERY="sometimes").code == 1
