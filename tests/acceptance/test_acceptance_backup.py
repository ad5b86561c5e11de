"""A running orrery is copied while it is asked and written to; the copy, started elsewhere, answers and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acceptance.support import Platform, asked_all_along, cli, fresh_settings, tides, wait
from orrery.app import Orrery
from orrery.settings import load
from orrery.timeline.verify import verify


@pytest.mark.slow
def test_a_copy_of_a_running_orrery_answers_elsewhere(platform: Platform, tmp_path: Path) -> None:
    home = platform.settings.home
    with asked_all_along(platform, every=0.05) as answers:
        wait(lambda: len(answers) > 20)
        platform.orrery.add_data("tides", tides(40, start="2026-02-01", seed=1), why="more", actor="ann", key="more")
        told = cli(home, "backup", str(tmp_path / "copy"), "--keys", str(tmp_path / "keys"), "--json")
        assert told.returncode == 0, told.stderr
    assert {status for status, _ in answers} == {200}
    facts = json.loads(told.stdout)
    rows = platform.orrery.lake.read("tides").polars().height
    platform.stop()  # the copy must not need it

    ports = fresh_settings(tmp_path / "unused")
    there = load(tmp_path / "again", port=ports.port, serving_port=ports.serving_port)
    restored = cli(there.home, "restore", str(tmp_path / "copy"), "--keys", str(tmp_path / "keys"))
    assert restored.returncode == 0 and "the chain holds" in restored.stdout, restored.stdout + restored.stderr
    home.rename(home.with_name("gone"))
    try:
        again = Platform(there)
        orrery = Orrery(there)
        assert orrery.lake.read("tides").polars().height == rows
        logged = orrery.lake.table("predictions", "tides").scan().collect().height
        assert logged > 20, "what was journalled is in the log"
        again.start()
        try:
            wait(lambda: again.ask().status_code == 200)
            assert again.served() == 1
            kinds = {event.kind for event in orrery.timeline.read(after=int(facts["seq"]))}
            assert "restored" in kinds and not kinds & {"failed", "trained", "built"}
            assert verify(event.to_json() for event in orrery.timeline.read()).holds
            assert cli(there.home, "key", "rotate", "home", "--why", "test").returncode == 1, "it runs"
        finally:
            assert again.stop() == 0
        orrery.timeline.engine.dispose()
        again.orrery.timeline.engine.dispose()
    finally:
        home.with_name("gone").rename(home)
        platform.start()
