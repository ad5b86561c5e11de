"""The erasure of the documentation, done as it is written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import polars as pl

from cli.conftest import Command
from orrery.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()
MARA = "Mara Lindqvist"
WALKED = ("Mark it", "A person asks what you have", "A person wants to be erased")


def commands() -> list[list[str]]:
    """Return the commands of the sections that are walked through, in order."""
    found = []
    for title in WALKED:
        section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
        for block in re.findall(r"```sh\n(.*?)```", section, flags=re.S):
            found += [shlex.split(line, comments=True)[1:] for line in block.splitlines() if line.startswith("orrery ")]
    return found


def test_the_page_does_what_it_says(orrery: Command, home: Settings, tmp_path: Path) -> None:
    here = tmp_path / "here"
    contract = re.search(r"```toml\n(# contract\.toml.*?)```", PAGE, flags=re.S)
    assert contract is not None
    (here / "contract.toml").write_text(contract[1])
    rows = pl.DataFrame(
        {
            "patient": [MARA if one % 10 == 0 else f"p{one % 10}" for one in range(200)],
            "doctor": [MARA if one % 10 == 1 else "Okonkwo" for one in range(200)],
            "address": [f"{one} Harbour Lane" for one in range(200)],
            "age": [one % 90 for one in range(200)],
        }
    )
    rows.write_csv(here / "visits.csv")
    said = {}
    for words in commands():
        ran = orrery(*words)
        assert ran.code == 0, (words, ran.err)
        said[" ".join(words[:2]) + (" --dry-run" if "--dry-run" in words else "")] = ran.out
    assert list(said) == [
        "data contract", "data add", "privacy find", "privacy erase --dry-run", "privacy erase", "privacy list",
    ]  # fmt: skip
    assert re.search(r"dataset visits +20 +20 +since v1", said["privacy find"])
    assert "files hold it" in said["privacy find"] and "Nothing of it is in any file" in said["privacy erase"]
    assert "nothing left" in said["privacy list"]
    shown = orrery("data", "show", "visits")
    assert "180 rows" in shown.out and "20 rows of it were erased" in shown.err
    assert orrery("privacy", "find", MARA, "--json").lines()[0]["rows"] == 0
    wrong = orrery("privacy", "erase", "Somebody Else", "--why", "w", "--yes")
    assert wrong.code == 1 and "Nothing is kept of this subject" in wrong.err
