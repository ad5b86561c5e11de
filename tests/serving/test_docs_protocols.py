"""Every example of docs/protocols.md does what it says, and its tables are those of the code."""

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
from orrery.serving.refusals import CODES
from orrery.settings import SETTINGS

PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
COMMANDS = re.findall(r"```console\n(.*?)```", PAGE, re.S)
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


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
    return text.replace(":8701", f":{served.port}").replace(":8702", f":{served.grpc_port}")


def commands(block: str) -> list[tuple[str, str]]:
    """Return the commands of a block and what they print."""
    found = re.findall(r"^\$ (.*?\n(?:> .*\n)*)((?:[^$>\n].*\n)*)", block, re.M)
    return [(command.replace("\n> ", "\n"), output) for command, output in found]


def test_the_page_has_examples_of_every_form() -> None:
    assert sum(len(commands(block)) for block in COMMANDS) == 8
    assert len(PROGRAMS) == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are written with curl")
@pytest.mark.parametrize("block", COMMANDS)
def test_a_command_prints_what_the_page_says(block: str, delays: Any) -> None:
    for command, output in commands(block):
        done = subprocess.run(["bash", "-c", here(delays, command)], capture_output=True, text=True)
        assert (done.stdout.strip(), done.returncode) == (output.strip(), 0), command


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_runs(program: str, delays: Any) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", here(delays, program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
