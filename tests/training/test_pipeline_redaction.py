"""Secrets are taken out of output, however they are spelled and wherever a block ends."""

from __future__ import annotations

import base64
import html
import json
import sys
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.pipeline.redaction import MARK, Redaction, Stream
from orrery.workers.contained import run

SECRET = 'p&ss "w<rd" of Jöns/+'
SPELLED = {
    "as it is": SECRET,
    "json": json.dumps(SECRET),
    "json in one alphabet": json.dumps(SECRET, ensure_ascii=False),
    "repr": repr(SECRET),
    "url": urllib.parse.quote(SECRET, safe=""),
    "path": urllib.parse.quote(SECRET),
    "form": urllib.parse.quote_plus(SECRET),
    "xml": html.escape(SECRET),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "basic": base64.b64encode(f"mara:{SECRET}".encode()).decode(),
    "basic, longer": base64.b64encode(f"maria:{SECRET}".encode()).decode(),
    "hexadecimal": SECRET.encode().hex(),
}
REDACTION = Redaction([SECRET])


@pytest.mark.parametrize("way", SPELLED)
def test_every_spelling(way: str) -> None:
    text = f"before {SPELLED[way]} after"
    assert MARK in REDACTION.of(text) and REDACTION.of(text).startswith("before ")
    assert Redaction(["another secret"]).of(text) == text  # a text without it stays


def test_values_of_all_kinds_and_lines() -> None:
    key = "-----BEGIN-----\nabcdefghijklmnop\nqrstuvwxyz012345\n-----END-----"
    found = Redaction([key]).of({"log": ["x qrstuvwxyz012345 y", 3, None, ("abcdefghijklmnop",)], key: True})
    assert found == {"log": [f"x {MARK} y", 3, None, (MARK,)], MARK: True}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.sampled_from(sorted(SPELLED)))
def test_it_does_not_matter_where_the_blocks_end(sizes: list[int], way: str) -> None:
    text = f'p&ss p& {SPELLED[way]} p&ss "w{SPELLED[way]} p&'.encode()
    stream, told, rest = Stream(REDACTION), b"", text
    for size in sizes:
        told += stream.take(rest[:size])
        rest = rest[size:]
    told += stream.take(rest) + stream.rest()
    assert told == REDACTION.whole(text) and told.count(MARK.encode()) == 2


def test_the_output_of_a_program_in_its_log_its_lines_and_its_end(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfor each in sys.argv[1]:\n    sys.stdout.write(each); sys.stdout.flush(); time.sleep(.002)\n"
        "print()\nsys.exit(sys.argv[1])"
    )
    lines: list[str] = []
    argv = [sys.executable, "-c", code, SECRET]
    told = run(argv, cwd=tmp_path, log=tmp_path / "log", on_line=lines.append, redaction=REDACTION)
    seen = "\n".join([told.tail, told.reason, *lines, (tmp_path / "log").read_text()])
    assert seen.count(MARK) >= 6 and "Jöns" not in seen and told.code == 1
    open_ = run(argv, cwd=tmp_path, log=tmp_path / "log")
    assert SECRET in open_.tail and SECRET in open_.reason and SECRET in (tmp_path / "log").read_text()
