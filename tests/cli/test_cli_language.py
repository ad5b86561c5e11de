"""What the command line understands, and how it says that it does not."""

from __future__ import annotations

import json

import pytest

from orrery.app import Orrery


def test_exit_code_2_and_the_nearest_name_for_a_command_that_is_not_there(orrery) -> None:
    ran = orrery("timelin", "tides")
    assert ran.code == 2
    assert "Did you mean 'timeline'?" in ran.err
    assert not ran.out


@pytest.mark.parametrize(
    "order",
    [
        ("train", "tides"),
        ("approve", "tides", 3),
        ("reject", "tides", 3),
        ("promote", "tides", 1),
        ("rollback", "tides"),
        ("retire", "tides", 2),
        ("delete", "tides", 1, "--yes"),
    ],
)
def test_what_overrides_or_removes_wants_a_reason(orrery, opened: Orrery, order: tuple[object, ...]) -> None:
    before = opened.timeline.head()
    ran = orrery(*order)
    assert ran.code == 2
    assert "--why" in ran.err
    assert opened.timeline.head() == before


def test_blanks_are_no_reason(orrery, opened: Orrery) -> None:
    before = opened.timeline.head()
    assert orrery("rollback", "tides", "--why", "  ").code == 1
    assert opened.timeline.head() == before


def test_an_event_wants_words(orrery, opened: Orrery) -> None:
    before = opened.timeline.head()
    assert orrery("event", "tides").code == 2
    assert opened.timeline.head() == before
    assert orrery("event", "tides", "A storm").code == 0
    assert opened.timeline.head() != before


def test_exit_code_1_and_sentences_for_what_is_refused(orrery, opened: Orrery) -> None:
    ran = orrery("timeline", "tide")
    assert ran.code == 1
    assert "There is no model 'tide' here." in ran.err
    assert "Did you mean 'tides'?" in ran.err
    assert "Traceback" not in ran.err


def test_an_error_is_json_for_scripts(orrery, opened: Orrery) -> None:
    ran = orrery("versions", "tide", "--json")
    assert (ran.code, ran.out) == (1, "")
    assert json.loads(ran.err)["error"] == {
        "what": "There is no model 'tide' here.",
        "safe": "",
        "todo": "Did you mean 'tides'?",
    }
    misread = orrery("approve", "tides", "--json")
    assert misread.code == 2
    assert "VERSION" in json.loads(misread.err)["error"]["what"]


def test_shared_options_are_understood_before_the_command_and_after_it(orrery, opened: Orrery, tmp_path) -> None:
    home = opened.settings.home
    empty = {"ORRERY_HOME": str(tmp_path / "nowhere")}
    before = orrery("--home", home, "--json", "models", **empty)
    after = orrery("models", "--json", "--home", home, **empty)
    assert before.code == after.code == 0
    assert before.out == after.out != ""


def test_reading_makes_no_orrery(orrery, home) -> None:
    ran = orrery("models")
    assert ran.code == 1
    assert "There is no orrery in" in ran.err
    assert not (home.home / "orrery.db").exists()


def test_an_unknown_setting_is_named(orrery) -> None:
    ran = orrery("models", ORRERY_PROT="1")
    assert ran.code == 1
    assert "ORRERY_PROT" in ran.err


def test_who_acts_can_be_said(orrery, opened: Orrery) -> None:
    orrery("event", "tides", "One")
    orrery("event", "tides", "Two", "--as", "nora")
    orrery("--as", "li", "event", "tides", "Three")
    actors = [event.actor for event in opened.timeline.read("tides", kinds=("business",))]
    assert actors == ["mara", "nora", "li"]


def test_a_reader_that_has_seen_enough_is_no_error(orrery, opened: Orrery) -> None:
    import subprocess
    import sys

    from_home = ["--home", str(opened.settings.home)]
    command = f"{sys.executable} -m orrery.cli.main timeline {' '.join(from_home)} --json"
    script = f"set -o pipefail; {{ {command}; {command}; }} | head -c 10 >/dev/null"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
