"""The documentation cannot drift: the reference is made from the code, and nothing that exists is missing in it."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from orrery.cli.main import app
from orrery.settings import SETTINGS
from orrery.spec import form
from orrery.timeline.kinds import KINDS

DOCS = Path(__file__).parents[2] / "docs"
ROOT: Any = typer.main.get_command(app)


def made() -> Any:
    found = importlib.util.spec_from_file_location("orrery_docs_make", DOCS / "reference" / "make.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_reference_is_current() -> None:
    script = DOCS / "reference" / "make.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run make docs"


def test_every_setting_command_kind_and_key_is_in_the_reference() -> None:
    text = {path.name: path.read_text() for path in (DOCS / "reference").glob("*.md")}
    assert [name for name in SETTINGS if f"`{name}`" not in text["settings.md"]] == []
    assert [kind for kind in KINDS if f"`{kind}`" not in text["events.md"]] == []
    words = [words for words, _ in made().commands(ROOT, "orrery")]
    assert len(words) >= 25
    assert [one for one in words if f"## `{one}" not in text["cli.md"]] == []
    keys = [
        field for struct in (form.Model, form.Rollout, form.Burden, form.Triggers) for field in struct.__struct_fields__
    ]
    assert [key for key in keys if f"`{key}`" not in text["project.md"] and f".{key}]" not in text["project.md"]] == []


PAGES = [DOCS.parent / "README.md", *DOCS.rglob("*.md"), *(DOCS.parent / "src/orrery/cli/template").rglob("*.md.txt")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_links_in_the_documents_exist(page: Path) -> None:
    text = page.read_text()
    groups = {words: command for words, command in made().commands(ROOT, "orrery")}
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.S))
    for line in re.findall(r"^orrery .*", blocks, flags=re.M):
        parts = shlex.split(line, comments=True)
        command = groups.get(" ".join(parts[:3])) or groups.get(" ".join(parts[:2]))
        assert command is not None or (len(parts) > 1 and parts[1].startswith("-")), line
        options = {name for parameter in command.params for name in parameter.opts}
        assert {part for part in parts if part.startswith("--")} <= options, line
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (page.parent / target).exists(), target


def test_every_word_of_the_glossary_is_there_once() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", (DOCS / "glossary.md").read_text(), flags=re.M)
    assert words == sorted(set(words), key=str.lower)
    assert {"champion", "challenger", "timeline", "contract", "segment", "trigger"} <= set(words)
