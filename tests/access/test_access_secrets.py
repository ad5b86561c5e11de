"""Secrets of projects: what is on the disk tells nobody, keys change while everything can be read, and who may."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from orrery.access.roles import Grant, Principal
from orrery.access.secrets import Secrets
from orrery.app import Orrery
from orrery.data.sealed import Sealed
from orrery.errors import NotAllowed, NotFound, NotUnderstood
from orrery.settings import Settings

VALUE = "the moons of Jupiter are four"
BY = {"why": "For the test.", "actor": "mara"}


def on_disk(home: Settings) -> bytes:
    return b"\0".join(path.read_bytes() for path in home.home.rglob("*") if path.is_file())


def test_a_value_is_nowhere_on_the_disk_and_comes_back(home: Settings) -> None:
    orrery = Orrery(home)
    (event,) = orrery.set_secret("tides", "warehouse", VALUE, **BY)
    assert (event.kind, event.actor, event.data["change"]) == ("secret", "mara", "set")
    assert orrery.secrets.values("tides") == {"warehouse": VALUE} and orrery.secrets.values("other") == {}
    assert orrery.timeline.models() == []  # a secret alone makes no model
    found = on_disk(home)
    assert b"warehouse" in found  # what is looked through is what was written
    assert VALUE.encode() not in found and base64.b64encode(VALUE.encode()) not in found
    assert orrery.set_secret("tides", "warehouse", VALUE + "!", **BY)[0].data["change"] == "replaced"
    assert orrery.secrets.values("tides") == {"warehouse": VALUE + "!"}
    for path in (home.home / "secrets").iterdir():
        assert path.stat().st_mode & 0o077 == 0 or path.name.startswith("secrets.db")
    assert (home.home / "secrets").stat().st_mode & 0o077 == 0


def test_a_removed_secret_is_gone(home: Settings) -> None:
    orrery = Orrery(home)
    orrery.set_secret("tides", "warehouse", VALUE, **BY)
    before = (home.home / "secrets" / "secrets.db").read_bytes()
    (event,) = orrery.remove_secret("tides", "warehouse", **BY)
    assert event.data["change"] == "removed" and orrery.secrets.all() == [] and orrery.secrets.values("tides") == {}
    with pytest.raises(NotFound):
        orrery.remove_secret("tides", "warehouse", **BY)
    after = (home.home / "secrets" / "secrets.db").read_bytes()
    assert b"warehouse" in before and b"tides/warehouse" not in after


@pytest.mark.parametrize("value", ["", "sh0rt", " " * 20, "x" * 70_000, "nul \0 inside it"])
def test_what_cannot_be_a_secret(home: Settings, value: str) -> None:
    orrery = Orrery(home)
    with pytest.raises(NotUnderstood) as told:
        orrery.set_secret("tides", "warehouse", value, **BY)
    assert orrery.secrets.all() == [] and (not value.strip() or value not in str(told.value))
    with pytest.raises(NotUnderstood):
        orrery.set_secret("tides", "Not A Name", VALUE, **BY)
    with pytest.raises(NotUnderstood):
        orrery.set_secret("tides", "warehouse", VALUE, why=" ", actor="mara")


def test_rotation_changes_every_key_and_no_value(home: Settings) -> None:
    orrery = Orrery(home)
    orrery.set_secret("tides", "warehouse", VALUE, **BY)
    orrery.set_secret("flights", "index", VALUE[::-1], **BY)
    key, copy = home.home / "secrets" / "key", home.home / "copy"
    copy.write_text(key.read_text())
    events = orrery.rotate_secrets("", **BY)
    assert [event.data["secret"] for event in events] == ["index", "warehouse"]
    assert len(key.read_text().split()) == 1 and key.read_text() != copy.read_text()
    assert orrery.secrets.values("tides") == {"warehouse": VALUE}
    assert [one.by for one in orrery.secrets.all()] == ["mara", "mara"]
    stolen = Secrets(home.home / "secrets", str(copy), Sealed)
    with pytest.raises(NotAllowed):
        stolen.values("tides")  # the old key opens nothing any more
    assert [event.data["secret"] for event in orrery.rotate_secrets("tides", **BY)] == ["warehouse"]


def test_a_rotation_that_was_killed_loses_nothing(home: Settings) -> None:
    orrery = Orrery(home)
    orrery.set_secret("tides", "warehouse", VALUE, **BY)
    key = home.home / "secrets" / "key"
    key.write_text(f"{'n' * 48}\n{key.read_text()}")  # killed between the new line and the first secret
    assert orrery.secrets.values("tides") == {"warehouse": VALUE}
    orrery.set_secret("tides", "second", VALUE[::-1], **BY)  # sealed with the new line
    assert set(orrery.secrets.values("tides")) == {"warehouse", "second"}
    orrery.rotate_secrets("", **BY)
    assert orrery.secrets.values("tides") == {"warehouse": VALUE, "second": VALUE[::-1]}


def test_a_key_file_of_ones_own(home: Settings, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    secrets = Secrets(home.home / "secrets", str(file), Sealed)
    with pytest.raises(NotAllowed):
        secrets.put("tides", "warehouse", VALUE, "mara", "now")  # one that is named is never made
    file.write_text("short")
    with pytest.raises(NotUnderstood):
        secrets.put("tides", "warehouse", VALUE, "mara", "now")
    file.write_text("a" * 48)
    secrets.put("tides", "warehouse", VALUE, "mara", "now")
    file.write_text("b" * 48 + "\n" + "a" * 48)
    secrets.rotate()
    file.write_text("b" * 48)
    assert secrets.values("tides") == {"warehouse": VALUE}
    file.write_text("a" * 48)
    with pytest.raises(NotAllowed):
        secrets.values("tides")


def test_who_may(home: Settings) -> None:
    orrery = Orrery(home)
    orrery.set_secret("tides", "warehouse", VALUE, **BY)
    for role, allowed in (("viewer", False), ("reviewer", False), ("scientist", True), ("operator", True)):
        theirs = orrery.acting(Principal("x", (Grant(role, "tides"),)))
        if allowed:
            (event,) = theirs.set_secret("tides", "other", VALUE, why="w", actor="somebody else")
            assert event.actor == "x"
        else:
            with pytest.raises(NotAllowed):
                theirs.set_secret("tides", "other", VALUE, **BY)
        with pytest.raises(NotAllowed):
            theirs.rotate_secrets("", **BY)  # everybody's
        with pytest.raises(NotFound):
            theirs.remove_secret("flights", "other", **BY)
