"""What the checklist names as proof is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_line_names_proof_that_exists_or_says_why_it_is_not_met() -> None:
    text = (ROOT / "docs" / "asvs.md").read_text()
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    rows = [row for row in lines if row[0].strip() != "id"]
    assert len(rows) > 70
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for id_, _, shown in ([cell.strip() for cell in row] for row in rows):
        assert re.match(r"\d+(\.\d+)*", id_), id_
        named = re.findall(r"`([^`]+)`", shown)
        assert named or "](" in shown or "ot met" in shown or "as 2.7" in shown, id_
        for one in named:
            if one.startswith("test_"):
                assert f"def {one}(" in tests, (id_, one)
            elif re.search(r"\.(py|md|toml)$", one):
                places = (ROOT / "tests" / one, ROOT / "src" / "orrery" / one, ROOT / one)
                assert any(place.exists() for place in places), (id_, one)
