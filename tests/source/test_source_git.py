"""Checkouts are whole, shared, read-only, and lead nowhere else."""

from __future__ import annotations

import stat
import threading

import pytest

from orrery.errors import NotFound, NotUnderstood


@pytest.fixture
def mine(source, clone):
    """A clone whose commits go straight into the repository of the same name."""
    made = clone()
    bare = source.create("tides")
    made.git("remote", "add", "origin", str(bare))
    return made


def pushed(mine, message: str = "First") -> str:
    commit = mine.commit(message)
    mine.git("push", "-q", "origin", "main")
    return commit


def test_a_checkout_is_read_only_and_reused(source, mine):
    mine.write("deep/pipeline.py", "x = 1\n")
    (mine.folder / "deep/link.py").symlink_to("pipeline.py")
    commit = pushed(mine)
    path = source.checkout("tides", commit)
    assert path == source.checkout("tides", commit[:8]) == source.checkout("tides", "main")
    assert (path / "deep/pipeline.py").read_text() == "x = 1\n" == (path / "deep/link.py").read_text()
    modes = [entry.stat().st_mode for entry in (path, path / "deep", path / "deep/pipeline.py")]
    assert not any(mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) for mode in modes)
    assert not (path / ".git").exists() and [entry.name for entry in path.parent.iterdir()] == [commit]


def test_many_at_once_get_the_same(source, mine):
    for number in range(50):
        mine.write(f"file{number}", str(number))
    commit = pushed(mine)
    found, failures = [], []

    def get() -> None:
        try:
            path = source.checkout("tides", commit)
            found.append((path, len(list(path.iterdir()))))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and set(found) == {(source.checkouts / "tides" / commit, 51)}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../secret", "deep/../../x"])
def test_links_that_lead_outside_are_refused(source, mine, target):
    mine.write("deep/file", "x")
    (mine.folder / "link").symlink_to(target)
    commit = pushed(mine)
    with pytest.raises(NotUnderstood, match="leads outside"):
        source.checkout("tides", commit)
    assert list((source.checkouts / "tides").iterdir()) == []


def test_links_through_links_are_refused(source, mine):
    (mine.folder / "a").symlink_to("b/../../..")
    (mine.folder / "b").symlink_to(".")
    commit = pushed(mine)
    with pytest.raises(NotUnderstood, match="leads outside"):
        source.checkout("tides", commit)


def test_what_is_not_there_is_said(source, mine):
    commit = pushed(mine)
    for wrong in ("0" * 40, "--help", "-x", "main..x", "", "../x"):
        with pytest.raises(NotFound, match="no commit"):
            source.resolve("tides", wrong)
    with pytest.raises(NotFound, match="no repository"):
        source.log("waves")
    with pytest.raises(NotUnderstood):
        source.path("../etc")
    with pytest.raises(NotFound, match="no file"):
        source.text("tides", commit, "absent")


def test_pages_can_ask(source, mine):
    assert source.log("tides") == []
    first = pushed(mine, "First\n\nWith a body.")
    mine.write("pipeline.py", "x = 1\n")
    mine.write("ünï cøde.txt", "")
    second = pushed(mine, "Second")
    log = source.log("tides")
    assert [(commit.id, commit.author) for commit in log] == [(second, "Nora"), (first, "Nora")]
    assert log[1].message == "First\n\nWith a body." and log[0].at.tzinfo is not None
    assert source.log("tides", first, limit=5) == log[1:]
    assert [(file.path, file.size) for file in source.files("tides", second)][1:] == [
        ("pipeline.py", 6),
        ("ünï cøde.txt", 0),
    ]
    assert source.text("tides", second, "pipeline.py") == "x = 1\n"
    assert source.text("tides", second, "ünï cøde.txt") == ""
    assert "+x = 1" in source.diff("tides", first, second) and source.diff("tides", second, second) == ""
