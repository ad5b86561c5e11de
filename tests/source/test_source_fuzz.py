"""Whatever is sent to git's addresses: it is told what is wrong, nothing is executed, and no ref is moved.

The small size runs with the other tests; ``make fuzz`` runs the large one.
"""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from orrery.source.git import Source
from source.conftest import SPEC

EXAMPLES = 3000 if os.environ.get("FUZZ") == "large" else 100
SERVICES = ["git-upload-pack", "git-receive-pack", "git-upload-archive", "", "../x", "git-receive-pack\n", "$(touch c)"]
NAMES = [
    "tides",
    "tides.git",
    "nothing",
    "..",
    "../tides",
    "tides%2f..",
    "%2e%2e",
    ".git",
    "-x",
    "$(touch c)",
    "a" * 300,
]
ENDS = ["info/refs", "git-upload-pack", "git-receive-pack", "HEAD", "config", "objects/info/packs", "hooks/update", ""]
NO = "0" * 40


def line(text: bytes) -> bytes:
    return f"{len(text) + 4:04x}".encode() + text


def orders(head: str) -> st.SearchStrategy[bytes]:
    """Bodies of a push: right ones, and ones in which something is not as it should be."""
    refs = st.sampled_from(["refs/heads/main", "refs/heads/x", "refs/../../x", "HEAD", "main", "refs/heads/x.lock", ""])
    ids = st.sampled_from([head, NO, "f" * 40, "", "x" * 40])
    marks = st.sampled_from([b"report-status", b"report-status agent=$(touch c)", b"", b"push-options", b"\xff\0\n"])
    command = st.tuples(ids, ids, refs, marks).map(lambda one: " ".join(one[:3]).encode() + b"\0" + one[3])
    lines = st.lists(command.map(line), max_size=3).map(b"".join)
    packs = st.sampled_from([b"", b"PACK", b"PACK\0\0\0\2\xff\xff\xff\xff", b"PACK\0\0\0\2\0\0\0\1" + b"x" * 40])
    whole = st.tuples(lines, st.sampled_from([b"0000", b"", b"0001", b"ffff", b"zzzz", b"0003"]), packs | st.binary())
    return whole.map(b"".join) | st.binary(max_size=200)


def state(repository: Path) -> tuple[str, dict[str, bytes]]:
    """Refs, and all files but those of objects."""
    refs = subprocess.run(["git", "for-each-ref"], cwd=repository, capture_output=True, text=True, check=True).stdout
    files = {one.relative_to(repository).as_posix(): one for one in repository.rglob("*") if one.is_file()}
    return refs, {name: one.read_bytes() for name, one in files.items() if not name.startswith("objects/")}


def test_nothing_that_is_sent_to_git_breaks_or_changes_anything(
    address: str, source: Source, clone: Any, home: Any, timeline: Any
) -> None:
    mine = clone()
    mine.write("orrery.toml", SPEC)
    head = mine.commit()
    mine.git("push", f"{address}/tides.git", "main")
    repository = source.repos / "tides.git"
    before, events, repositories = state(repository), timeline.head(), set(source.repos.iterdir())

    reached: set[str] = set()
    with httpx.Client(trust_env=False, timeout=60) as web:

        @given(
            name=st.sampled_from(["tides"] * 12 + NAMES),
            end=st.sampled_from(ENDS[:3] * 5 + ENDS),
            service=st.sampled_from(SERVICES),
            method=st.sampled_from(["GET", "POST", "POST", "POST", "PUT", "DELETE"]),
            kind=st.sampled_from(["request", "result", "", "x\ty"]),
            packed=st.sampled_from(["", "gzip", "gzip of nothing", "br"]),
            protocol=st.sampled_from(["", "version=2", "version=99", "version=2:x=$(touch c)"]),
            body=orders(head),
        )
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @seed(7)
        def send(**one: Any) -> None:
            path = f"/{one['name']}/{one['end']}"
            content = gzip.compress(one["body"]) if one["packed"] == "gzip" else one["body"]
            headers = {"content-type": f"application/x-{one['end']}-{one['kind']}", "git-protocol": one["protocol"]}
            if one["packed"]:
                headers["content-encoding"] = one["packed"].partition(" ")[0]
            target = httpx.URL(address).copy_with(raw_path=b"/git" + path.encode())
            asked = {"service": one["service"]} if one["service"] else {}
            answer = web.request(
                one["method"],
                target,
                params=asked,
                headers=headers,
                content=content if one["method"] != "GET" else None,
            )
            reached.add(answer.headers.get("content-type", ""))
            assert answer.status_code < 500, (one, answer.status_code, answer.text)
            refs, files = state(repository)
            assert (refs, files) == before, one

        send()
    assert {"application/x-git-receive-pack-result", "application/x-git-upload-pack-result"} <= reached
    made = {one.name for one in set(source.repos.iterdir()) - repositories}
    assert made <= {"nothing.git"}  # a push to a new name makes an empty repository, as it should
    assert timeline.head() == events
    assert not [one for one in home.home.rglob("c") if one.is_file()], "something was executed"
    assert mine.git("fetch", f"{address}/tides.git", "main").returncode == 0
