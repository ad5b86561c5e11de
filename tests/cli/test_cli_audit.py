"""Who did what, and the chain in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Command
from orrery.app import Orrery


@pytest.mark.usefixtures("opened")
def test_what_somebody_did_under_every_name(orrery: Command, opened: Orrery) -> None:
    said = {"by": "root", "why": "For the test."}
    opened.accounts.add("mara", **said)
    opened.accounts.add("mara2", **said)
    opened.event("tides", why="A storm.", actor="mara")
    opened.event("tides", why="Another storm.", actor="mara2")
    assert [one["why"] for one in orrery("audit", "--by", "mara", "--json").lines()] == ["A storm."]
    opened.accounts.link("mara", "mara2", **said)
    for name in ("mara", "mara2", "MARA"):
        assert [one["why"] for one in orrery("audit", "--by", name, "--json").lines()] == ["A storm.", "Another storm."]
    opened.denials.note("mara", "release", "mara may not release in tides.", project="tides", of_model=True)
    denied = orrery("audit", "--by", "mara", "--kind", "denied")
    assert denied.code == 0 and "may not release" in denied.out and "storm" not in denied.out
    assert orrery("audit", "--by", "nobody").out == ""
    assert orrery("audit", "--kind", "denyed").code == orrery("audit", "--since", "yesterday").code == 1
    assert orrery("audit", "--since", "2999-01-01").out == ""


@pytest.mark.usefixtures("opened")
def test_the_chain_in_a_file(orrery: Command, tmp_path: Path) -> None:
    file = tmp_path / "chain.jsonl"
    (facts,) = orrery("audit", "export", file, "--json").lines()
    assert facts["holds"] and facts["events"] == len(file.read_text().splitlines()) > 10
    assert orrery("verify", file, "--head", facts["head"]).code == 0
    before = file.read_text()
    again = orrery("audit", "export", file)
    assert again.code == 1 and "there already" in again.err and file.read_text() == before
    assert [path.name for path in tmp_path.iterdir() if "chain" in path.name] == ["chain.jsonl"]
    lines = before.splitlines()
    file.write_text("\n".join(lines[:-1]))
    assert orrery("verify", file, "--head", facts["head"]).code == 1
    file.write_text("\n".join([*lines[:3], *lines[4:]]))
    assert orrery("verify", file).code == 1
    for words in (("import", file), ("export",), ("export", tmp_path / "x", "--by", "mara")):
        assert orrery("audit", *words).code == 2
    assert [one["data"]["what"] for one in orrery("audit", "--kind", "read", "--json").lines()] == ["chain"]
