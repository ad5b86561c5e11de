"""A copy that is taken while everything is written to comes back whole, and without the keys opens nothing."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from orrery.access.homekey import home_keys
from orrery.app import Orrery
from orrery.audit import backup as copies
from orrery.audit.rotation import replace_home_key, replace_privacy_key
from orrery.data.contract import Contract
from orrery.data.sealed import Sealed
from orrery.errors import Damaged, NotAllowed, NotFound
from orrery.settings import Settings, load
from orrery.testing.timeline_contract import note
from orrery.timeline.verify import verify

AT = datetime(2026, 3, 3, 12, tzinfo=UTC)
CONTRACT = {
    "columns": {
        "patient": {"type": "string", "personal": "pseudonymised", "subject": True},
        "remark": {"type": "string", "personal": "encrypted"},
    }
}
WARD = pl.DataFrame({"patient": ["Ann", "Bo"], "remark": ["quinsy", "catarrh"]})


def git(folder: Path, *words: str) -> str:
    said = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *said, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def opened(home: Settings) -> Iterator[Orrery]:
    """An orrery with everything that a copy has to have."""
    orrery = Orrery(home)
    orrery.timeline.append([note(f"event {number}") for number in range(5)])
    orrery.add_data("tides", pl.DataFrame({"height": [1.0, 2.0]}), why="First.", actor="ann")
    orrery.change_contract("ward", Contract.from_dict(CONTRACT), why="Declared.", actor="ann")
    orrery.add_data("ward", WARD, why="First.", actor="ann")
    orrery.secrets.put("tides", "token", "a-very-secret-value", "ann", "now")
    orrery.accounts.add("mara", by="root", why="For the test.")
    orrery.keys.session("mara", why="For the test.")
    home_keys(home.home)
    (home.home / "artifacts" / "1").mkdir(parents=True)
    (home.home / "artifacts" / "1" / "model").write_bytes(os.urandom(1000))
    (home.home / "cache").mkdir(exist_ok=True)
    (home.home / "cache" / "step").write_text("made anew")
    work, repo = home.home.parent / "work", home.home / "repos" / "tides.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(repo)], check=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True)
    git(work, "commit", "-q", "--allow-empty", "-m", "Begin")
    git(work, "push", "-q", str(repo), "main", "main:other")
    yield orrery
    orrery.timeline.engine.dispose()


def elsewhere(tmp_path: Path) -> Settings:
    return load(tmp_path / "there")


def test_it_comes_back_with_everything_and_its_chain_holds(opened: Orrery, tmp_path: Path) -> None:
    target, keys = tmp_path / "copy", tmp_path / "keys"
    manifest = copies.back_up(opened.settings, target, AT, keys)
    assert (manifest.seq, manifest.hash) == opened.timeline.head() and manifest.database == "sqlite"
    there = elsewhere(tmp_path)
    copies.restore(target, there, keys)
    again = Orrery(there)
    copies.check(again.timeline, manifest)
    assert [one.hash for one in again.timeline.read()] == [one.hash for one in opened.timeline.read()]
    assert again.lake.read("tides").polars().equals(opened.lake.read("tides").polars())
    assert again.secrets.values("tides") == {"token": "a-very-secret-value"}
    stored = again.lake.table("datasets", "ward").scan().collect()
    assert again.privacy.opened(Contract.from_dict(CONTRACT), stored, "ward")["remark"].to_list() == [
        "quinsy",
        "catarrh",
    ]
    for name in ("main", "other"):
        ours, theirs = (git(one.settings.home / "repos" / "tides.git", "rev-parse", name) for one in (opened, again))
        assert ours == theirs
    assert git(there.home / "repos" / "tides.git", "remote") == ""
    kept = "artifacts/1/model"
    assert (there.home / kept).read_bytes() == (opened.settings.home / kept).read_bytes()
    assert not (there.home / "cache").exists()
    again.add_data("tides", pl.DataFrame({"height": [3.0]}), why="It goes on.", actor="ann")
    assert again.lake.read("tides").polars().height == 3
    again.timeline.engine.dispose()


def test_without_the_keys_it_opens_nothing(opened: Orrery, tmp_path: Path) -> None:
    manifest = copies.back_up(opened.settings, tmp_path / "copy", AT)
    assert set(manifest.keys) == {"key", "privacy/key", "privacy/keys.db", "secrets/key"}
    secrets = [(opened.settings.home / name).read_bytes() for name in ("key", "privacy/key", "secrets/key")]
    for path in (tmp_path / "copy").rglob("*"):
        if path.is_file():
            body = path.read_bytes()
            assert not any(secret.strip() in body for secret in secrets), path
            assert b"a-very-secret-value" not in body and b"quinsy" not in body, path
            assert path.name not in ("keys.db", "key")
    there = elsewhere(tmp_path)
    copies.restore(tmp_path / "copy", there)
    again = Orrery(there)
    with pytest.raises(NotAllowed):
        again.secrets.values("tides")
    assert again.lake.read("tides").polars().height == 2  # what is not encrypted is there
    again.timeline.engine.dispose()


def test_a_copy_that_is_taken_under_writes_is_of_one_moment(opened: Orrery, tmp_path: Path) -> None:
    """Events, rows and commits come all the while: what the copied timeline speaks of is in the copy."""
    stop, writes = threading.Event(), itertools.count()

    def write() -> None:
        other = Orrery(opened.settings)
        while not stop.is_set():
            number = next(writes)
            other.add_data("tides", pl.DataFrame({"height": [float(number)]}), why="More.", actor="ann")
            other.timeline.append([note(f"more {number}")])
            if number % 7 == 0:
                other.lake.compact("tides")
        other.timeline.engine.dispose()

    writers = [threading.Thread(target=write) for _ in range(2)]
    for one in writers:
        one.start()
    try:
        for number in range(3):
            before = opened.timeline.head()[0]
            manifest = copies.back_up(opened.settings, tmp_path / f"copy-{number}", AT)
            there = load(tmp_path / f"there-{number}")
            copies.restore(tmp_path / f"copy-{number}", there)
            again = Orrery(there)
            copies.check(again.timeline, manifest)
            assert manifest.seq >= before
            told = again.states.data().datasets["tides"]
            assert again.lake.read("tides", told.version).polars().height == told.rows
            assert again.lake.read("tides").polars().height >= told.rows
            again.timeline.engine.dispose()
    finally:
        stop.set()
        for one in writers:
            one.join()
    assert next(writes) > 10 and opened.timeline.head()[0] > manifest.seq


def test_a_copy_that_was_touched_is_refused(opened: Orrery, tmp_path: Path) -> None:
    whole = tmp_path / "copy"
    copies.back_up(opened.settings, whole, AT)

    def flip(path: Path) -> None:
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 1
        path.write_bytes(bytes(body))

    harms: list[Callable[[Path], object]] = [
        lambda copy: flip(copy / "orrery.db"),
        lambda copy: flip(copy / "home" / "artifacts" / "1" / "model"),
        lambda copy: (copy / "home" / "artifacts" / "1" / "model").unlink(),
        lambda copy: (copy / "home" / "hooks").write_text("put in"),
        lambda copy: next((copy / "lake").rglob("*.parquet")).unlink(),
    ]
    for number, harm in enumerate(harms):
        copy = tmp_path / f"harmed-{number}"
        shutil.copytree(whole, copy, symlinks=True)
        harm(copy)
        with pytest.raises(Damaged):
            copies.restore(copy, load(tmp_path / "there"))
        assert not (tmp_path / "there").exists()
    (whole / "manifest.json").unlink()
    with pytest.raises(NotFound):
        copies.restore(whole, elsewhere(tmp_path))


def test_nothing_is_ever_written_over(opened: Orrery, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    copies.back_up(opened.settings, target, AT)
    with pytest.raises(NotAllowed, match="there already"):
        copies.back_up(opened.settings, target, AT)
    with pytest.raises(NotAllowed, match="not empty"):
        copies.restore(target, opened.settings)
    (tmp_path / "keys").mkdir()
    with pytest.raises(NotAllowed, match="there already"):
        copies.back_up(opened.settings, tmp_path / "second", AT, tmp_path / "keys")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["copy", "home", "keys", "work"]  # no half of anything


def test_another_history_is_not_taken_for_this_one(opened: Orrery, tmp_path: Path) -> None:
    manifest = copies.back_up(opened.settings, tmp_path / "copy", AT)
    other = Orrery(load(tmp_path / "other"))
    other.timeline.append([note("something else")])
    with pytest.raises(Damaged):
        copies.check(other.timeline, manifest)
    other.timeline.engine.dispose()


@pytest.mark.postgresql
def test_a_database_of_postgresql_comes_back(
    postgresql: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORRERY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ORRERY_DATABASE", postgresql())
    first = Orrery(load(tmp_path / "home"))
    first.timeline.append([note(f"event {number}") for number in range(5)])
    first.add_data("tides", pl.DataFrame({"height": [1.0, 2.0]}), why="First.", actor="ann")
    manifest = copies.back_up(first.settings, tmp_path / "copy", AT)
    assert manifest.database == "postgresql"
    monkeypatch.setenv("ORRERY_HOME", str(tmp_path / "there"))
    with monkeypatch.context() as patch:
        patch.delenv("ORRERY_DATABASE")
        with pytest.raises(NotAllowed, match="is of postgresql"):
            copies.restore(tmp_path / "copy", load(tmp_path / "there"))
    monkeypatch.setenv("ORRERY_DATABASE", postgresql())
    there = load(tmp_path / "there")
    copies.restore(tmp_path / "copy", there)
    again = Orrery(there)
    copies.check(again.timeline, manifest)
    assert again.lake.read("tides").polars().height == 2
    again.timeline.append([note("it goes on")])
    assert verify(event.to_json() for event in again.timeline.read()).holds
    for one in (first, again):
        one.timeline.engine.dispose()


def test_sessions_end_and_tokens_stay(opened: Orrery) -> None:
    opened.accounts.give("mara", "viewer", by="root", why="For the test.")
    token, _ = opened.keys.token("mara", scopes=["api"], by="root", why="For the test.")
    session, _ = opened.keys.session("mara", why="For the test.")
    assert opened.keys.check(session, "session")
    copies.end_sessions(opened.timeline, opened.clock.now())
    assert opened.keys.check(session, "session") is None and opened.keys.check(token, "token")


# --- rotation ----------------------------------------------------------------------------------------------------


def channel(orrery: Orrery) -> str:
    (one,) = orrery.channels.all()
    return orrery.channels.opened(one)[0]


@pytest.fixture
def chatting(opened: Orrery) -> Orrery:
    opened.remotes.set("tides", "https://example.org/tides.git", by="ann", why="For the test.", token="t0ken-of-remote")
    opened.channels.add("tides", "room", "chat", "json://127.0.0.1/room", [], True, "ann", "For the test.")
    return opened


def test_a_new_home_key_opens_what_the_old_one_sealed_and_the_old_one_nothing(chatting: Orrery) -> None:
    home, (old,) = chatting.settings.home, home_keys(chatting.settings.home)

    def anew() -> int:
        return chatting.channels.sealed_anew() + chatting.remotes.sealed_anew()

    assert replace_home_key(chatting.settings, anew) == 2
    assert chatting.remotes.opened("tides")[0] == "t0ken-of-remote"
    (fresh,) = home_keys(home)
    assert fresh != old and channel(chatting) == "json://127.0.0.1/room"
    assert (home / "key").stat().st_mode & 0o777 == 0o600
    (home / "key").write_text(old)
    with pytest.raises(Damaged):
        channel(chatting)
    with pytest.raises(Damaged):
        chatting.remotes.opened("tides")


def test_killed_between_two_steps_everything_is_readable_and_the_next_call_ends_it(chatting: Orrery) -> None:
    def killed() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_home_key(chatting.settings, killed)
    assert len(home_keys(chatting.settings.home)) == 2 and channel(chatting) == "json://127.0.0.1/room"
    replace_home_key(chatting.settings, chatting.channels.sealed_anew)
    assert len(home_keys(chatting.settings.home)) == 1 and channel(chatting) == "json://127.0.0.1/room"


def test_a_new_privacy_key_wraps_the_data_keys_anew_and_pseudonyms_stay(
    opened: Orrery, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Contract.from_dict(CONTRACT)

    def remarks() -> list[str]:
        stored = opened.lake.table("datasets", "ward").scan().collect()
        return sorted(opened.privacy.opened(rules, stored, "ward")["remark"].to_list(), reverse=True)

    name, first = opened.privacy.pseudonyms.of("Ann"), opened.privacy.pseudonyms.wrapping
    file = opened.settings.home / "privacy" / "keys.db"
    assert Sealed(file, first).opened([name or ""], [None]) == [None]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Sealed, "wrapped_anew", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        replace_privacy_key(opened.settings, opened.privacy)
    assert remarks() == ["quinsy", "catarrh"]  # killed before anything was encrypted anew
    assert replace_privacy_key(opened.settings, opened.privacy) == 2
    assert remarks() == ["quinsy", "catarrh"] and opened.privacy.pseudonyms.of("Ann") == name
    with pytest.raises(Damaged):
        Sealed(file, first).opened([name or ""], [None])  # the first key opens no data key any more
    before = file.read_bytes()
    assert replace_privacy_key(opened.settings, opened.privacy) == 2 and file.read_bytes() != before
    assert remarks() == ["quinsy", "catarrh"]
    opened.add_data("ward", WARD.with_columns(remark=pl.lit("third")), why="More.", actor="ann")
    assert sorted(remarks()) == ["catarrh", "quinsy", "third", "third"]
