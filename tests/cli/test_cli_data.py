"""Rows come in by the command line: what is good becomes a version, the rest is kept with the reason."""

from __future__ import annotations

from pathlib import Path

HEAD = "id,height\n"


def rows(first: int, count: int, height: float = 1.0) -> str:
    return "".join(f"r{number},{height + number % 7}\n" for number in range(first, first + count))


def test_files_become_a_version_that_can_be_looked_at(orrery, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEAD + rows(0, 60))
    (tmp_path / "b.csv").write_text(HEAD + rows(60, 60))
    [added] = orrery("data", "add", "tides", tmp_path / "a.csv", "--why", "The first month", "--json").lines()
    assert added == {"dataset": "tides", "version": 1, "rows": 60, "quarantined": 0, "reasons": {}}
    assert orrery("data", "add", "tides", tmp_path / "b.csv", "--key", "b").code == 0
    assert orrery("data", "add", "tides", tmp_path / "b.csv", "--key", "b").code == 0  # the same key: not twice
    [listed] = orrery("data", "list", "--json").lines()
    assert (listed["dataset"], listed["version"], listed["rows"]) == ("tides", 2, 120)
    [first] = orrery("data", "show", "tides", "--version", 1, "--json").lines()
    assert first["rows"] == 60
    assert {column["name"]: column["type"] for column in first["profile"]} == {"id": "string", "height": "number"}
    events = orrery("timeline", "--json").lines()
    assert [one["kind"] for one in events] == ["contract_changed", "data_added", "data_added"]
    assert events[1]["why"] == "The first month"


def test_rows_that_break_the_contract_are_set_aside_with_the_reason(orrery, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(HEAD + rows(0, 200))
    orrery("data", "add", "tides", tmp_path / "good.csv")
    (tmp_path / "odd.csv").write_text(HEAD + rows(200, 3) + "r999,4000.0\n")
    added = orrery("data", "add", "tides", tmp_path / "odd.csv")
    assert added.code == 0
    assert "3 rows added" in added.out
    assert "1 rows were set aside" in added.out
    [aside] = orrery("data", "quarantine", "tides", "--json").lines()
    assert aside["row"]["id"] == "r999"
    assert "height is above" in aside["why"]


def test_a_contract_is_printed_edited_and_put_in_force(orrery, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEAD + rows(0, 200))
    orrery("data", "add", "tides", tmp_path / "a.csv")
    text = orrery("data", "contract", "tides", "--print").out
    assert "[columns.height]" in text
    file = tmp_path / "contract.toml"
    file.write_text(text.replace("max = ", "max = 5.0 # "))
    assert orrery("data", "contract", "tides", "--edit", file).code == 2  # without a reason
    assert orrery("data", "contract", "tides", "--edit", file, "--why", "No tide is higher").code == 0
    [added] = orrery("data", "add", "tides", tmp_path / "a.csv", "--json").lines()
    assert added["quarantined"] > 0
    file.write_text(text.replace("max = ", "maks = "))
    wrong = orrery("data", "contract", "tides", "--edit", file, "--why", "x")
    assert wrong.code == 1
    assert "Did you mean 'max'?" in wrong.err


def test_what_is_not_there(orrery, tmp_path: Path) -> None:
    missing = orrery("data", "add", "tides", tmp_path / "none.csv")
    assert missing.code == 1
    assert "There is no file" in missing.err
    assert orrery("data", "show", "tides").code == 1
    assert orrery("data", "add", "Tides!", tmp_path / "none.csv").code == 1
