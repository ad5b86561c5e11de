"""Every example of the pages about serving does what it says, and their tables are those of the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orrery.serving import explaining
from orrery.serving.door import Limits
from orrery.serving.metrics import Metrics
from orrery.serving.refusals import CODES
from orrery.settings import SETTINGS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("protocols", "serve", "from-mlflow", "tuning")}
PAGE = PAGES["protocols"]


def blocks(language: str, needs: str = "") -> list[Any]:
    """Return the examples of a language on all pages."""
    found = [
        (name, block) for name, page in PAGES.items() for block in re.findall(rf"```{language}\n(.*?)```", page, re.S)
    ]
    return [pytest.param(block, id=f"{name}-{at}") for at, (name, block) in enumerate(found) if needs in block]


@pytest.fixture(scope="module")
def delays(served: Any) -> Iterator[Any]:
    found = served()
    found.start(grpc_port=found.grpc_port)
    kinds = {"distance": "Float64", "carrier": "String"}
    found.assign(found.slot(3, model="delays", columns=kinds, plan={"value": 0.25}))
    yield found
    found.close()


def here(served: Any, text: str) -> str:
    """Put the server's real ports into an example."""
    text = text.replace(":8701", f":{served.port}").replace(":5000", f":{served.port}")
    return text.replace(":8702", f":{served.grpc_port}")


def commands(block: str) -> list[tuple[str, str]]:
    """Return the commands of a block and what they print."""
    found = re.findall(r"^\$ (.*?\n(?:> .*\n)*)((?:[^$>\n].*\n)*)", block, re.M)
    return [(command.replace("\n> ", "\n"), output) for command, output in found]


def test_the_pages_have_examples_of_every_form() -> None:
    assert sum(len(commands(*block.values)) for block in blocks("console")) == 20
    assert len(blocks("python", "localhost")) == 4


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are written with curl")
@pytest.mark.parametrize("block", blocks("console"))
def test_a_command_prints_what_the_page_says(block: str, delays: Any) -> None:
    for command, output in commands(block):
        done = subprocess.run(["bash", "-c", here(delays, command)], capture_output=True, text=True)
        assert (done.stdout.strip(), done.returncode) == (output.strip(), 0), command


@pytest.mark.parametrize("program", blocks("python", "localhost"))
def test_a_program_runs(program: str, delays: Any) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", here(delays, program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_metric_is_on_the_page_and_the_other_way_round() -> None:
    named = set(re.findall(r"`((?:orrery|request)_\w+)`", PAGES["serve"]))
    assert named == {metric.name for metric in vars(Metrics()).values()}
    assert set(re.findall(r"`((?:orrery|request)_\w+)`", PAGES["tuning"])) <= named


def test_settings_on_the_pages_exist_with_their_defaults() -> None:
    for page in PAGES.values():
        assert set(re.findall(r"ORRERY_\w+", page)) <= SETTINGS.keys()
    for name, default in re.findall(r"^\| `(ORRERY_\w+)` \| (\d+) \|", PAGES["tuning"], re.M):
        assert f"default {default}." in SETTINGS[name]


def test_every_refusal_and_limit_is_on_the_page() -> None:
    for _, code in CODES:
        assert re.search(rf"\| {code.http} \| {code.grpc} \| {code.mlflow} \|", PAGE), code
    for name in ("ORRERY_BODY_BYTES", "ORRERY_BODY_SECONDS", "ORRERY_REQUESTS_AT_ONCE", "ORRERY_GRPC_PORT"):
        assert name in PAGE and name in SETTINGS
    assert f"| {explaining.MAX_WAITING}, and {explaining.MAX_ROWS} |" in PAGE
    limits = Limits()
    assert f"{limits.body >> 20} MiB" in PAGE and limits.bodies == 8 * limits.body
    assert f"| {limits.requests} |" in PAGE and f"| {limits.connections};" in PAGE
    assert f"{limits.header >> 10} KiB, and {limits.header_seconds:g} s" in PAGE
