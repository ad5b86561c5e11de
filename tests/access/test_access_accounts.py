"""Accounts, roles and keys: what they open, what they do not, and that no secret stays behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.access.accounts import Accounts
from orrery.access.denials import Denials
from orrery.access.keys import IDLE, SESSION, Keys
from orrery.access.patience import FORGOTTEN, FREE, LONGEST_WAIT, Patience
from orrery.access.roles import ALLOWED, MEANING, ROLES, Grant, Permission, Principal, grant
from orrery.errors import Conflict, NotAllowed, NotFound, NotUnderstood
from orrery.settings import Settings
from orrery.timeline.store import Timeline
from orrery.timeline.verify import verify

BY = {"by": "tom", "why": "For the test."}
PASSWORD = "the moons of Jupiter are four"
BOTH = pytest.mark.parametrize(
    "timeline", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)


@pytest.fixture
def accounts(timeline: Timeline) -> Accounts:
    made = Accounts(timeline)
    made.add("mara", **BY)
    return made


@BOTH
def test_an_account_comes_and_goes_with_all_that_it_has(timeline: Timeline) -> None:
    accounts, keys = Accounts(timeline), Keys(timeline)
    accounts.add("mara", links=["Mara@Example.org"], **BY)
    accounts.add("robot", kind="service", owner="mara", **BY)
    accounts.give("mara", "reviewer:quality", "team/flights", **BY)
    accounts.choose_password("mara", PASSWORD, **BY)
    shown, _ = keys.token("robot", scopes=["git"], **BY)
    assert accounts.get("mara").links == ("mara@example.org",)
    assert accounts.fits("mara", PASSWORD) and not accounts.fits("mara", PASSWORD + " ")
    assert keys.check(shown, "token")
    accounts.disable("mara", **BY)
    assert accounts.principal("mara") is None and accounts.principal("robot") is None
    assert not accounts.fits("mara", PASSWORD) and keys.check(shown, "token") is None
    with pytest.raises(NotAllowed):
        keys.token("mara", scopes=["git"], **BY)
    with pytest.raises(NotAllowed):
        accounts.disable("mara", **BY)
    assert [event.kind for event in timeline.read()] == ["account", "account", "granted", "account", "key", "account"]
    assert verify(event.to_json() for event in timeline.read()).holds
    accounts.link("robot", "robot@example.org", **BY)
    assert "example.org" not in "".join(str(event.to_json()) for event in timeline.read()).casefold()


def test_a_person_is_one_whatever_the_name(accounts: Accounts) -> None:
    accounts.add("li", links=["li@home.example"], **BY)
    accounts.add("mara2", **BY)
    accounts.add("robot", kind="service", owner="mara2", **BY)
    accounts.link("mara", "mara2", **BY)
    accounts.link("mara", "Mara Lind", **BY)  # as git has her in her commits
    for name in ("mara", "MARA", "mara2", "robot", "Mara Lind"):
        assert accounts.person(name) == "mara", name
    assert accounts.person("LI@Home.example") == "li"
    assert accounts.person("somebody else") == "somebody else"
    with pytest.raises(Conflict):
        accounts.link("li", "mara2", **BY)
    with pytest.raises(Conflict):  # a circle
        accounts.link("mara2", "mara", **BY)
    with pytest.raises(Conflict):
        accounts.add("li@home.example", **BY)
    with pytest.raises(NotFound):
        accounts.link("nobody", "x@example.org", **BY)
    for odd in ("", " Mara", "Mara ", "Mara\nLind", "Mara <mara@example.org>"):
        with pytest.raises(NotUnderstood):
            accounts.link("mara", odd, **BY)


def test_what_cannot_be_an_account_changes_nothing(accounts: Accounts, timeline: Timeline) -> None:
    head = timeline.head()
    for name in ("", "-x", "a b", "orrery/gates", "x" * 65, "a\nb"):
        with pytest.raises(NotUnderstood):
            accounts.add(name, **BY)
    with pytest.raises(NotUnderstood):
        accounts.add("robot", kind="service", **BY)
    with pytest.raises(NotFound):
        accounts.add("robot", kind="service", owner="nobody", **BY)
    with pytest.raises(Conflict):
        accounts.add("mara", **BY)
    for password in ("short", "mara12345678", "x" * 300):
        with pytest.raises(NotUnderstood):
            accounts.choose_password("mara", password, **BY)
    for role, place in (("king", "*"), ("viewer:quality", "*"), ("viewer", "A b"), ("reviewer:Q q", "*")):
        with pytest.raises(NotUnderstood):
            accounts.give("mara", role, place, **BY)
    with pytest.raises(NotUnderstood):
        accounts.disable("mara", by="tom", why=" ")
    assert timeline.head() == head and not accounts.get("mara").disabled


def test_the_last_administrator_stays(accounts: Accounts) -> None:
    accounts.give("mara", "administrator", **BY)
    with pytest.raises(NotAllowed):
        accounts.disable("mara", **BY)
    with pytest.raises(NotAllowed):
        accounts.take("mara", "administrator", **BY)
    accounts.add("li", **BY)
    accounts.give("li", "administrator", "tides", **BY)
    with pytest.raises(NotAllowed):  # of one project is not of everything
        accounts.disable("mara", **BY)
    accounts.give("li", "administrator", **BY)
    accounts.disable("mara", **BY)


def test_a_key_opens_what_it_is_and_no_other(accounts: Accounts, timeline: Timeline) -> None:
    keys, now = Keys(timeline), datetime.now(UTC)
    token, about = keys.token("mara", scopes=["git"], lasts=timedelta(days=1), **BY)
    session, _ = keys.session("mara", why="signed in")
    assert keys.check(token, "token") and keys.check(session, "session")
    assert keys.check(token, "session") is None and keys.check(session, "token") is None
    swapped = session.replace("orrery_s", "orrery_t")
    other, _ = keys.token("mara", scopes=["git"], **BY)
    mixed = token[:21] + other[21:]
    for wrong in (swapped, mixed, token[:-1], token + "A", token.upper(), "", "orrery_t", about.id, about.hash):
        assert keys.check(wrong, "token") is None, wrong
    assert keys.check(token, "token", now + timedelta(hours=25)) is None
    keys.revoke(about.id, **BY)
    assert keys.check(token, "token") is None and keys.check(other, "token")
    with pytest.raises(NotAllowed):
        keys.revoke(about.id, **BY)
    with pytest.raises(NotFound):
        keys.revoke("0" * 12, **BY)


def test_a_session_ends(accounts: Accounts, timeline: Timeline) -> None:
    keys, now = Keys(timeline), datetime.now(UTC)
    first, key = keys.session("mara", why="signed in")
    second, _ = keys.session("mara", why="signed in")
    third, _ = keys.session("mara", why="signed in")
    assert len({first, second, third}) == 3
    assert keys.check(first, "session", now + IDLE + timedelta(minutes=1)) is None
    assert keys.check(first, "session", now + IDLE - timedelta(minutes=1))  # used: it goes on from here
    assert keys.check(first, "session", now + IDLE + timedelta(minutes=1))
    assert keys.check(first, "session", now + SESSION + timedelta(seconds=1)) is None
    assert keys.sign_out("mara", key=key.id, **BY) == 1
    assert keys.check(first, "session") is None and keys.check(second, "session")
    assert keys.sign_out("mara", **BY) == 2
    assert keys.check(second, "session") is None and keys.check(third, "session") is None
    again, _ = keys.session("mara", why="signed in")
    accounts.choose_password("mara", PASSWORD, **BY)
    assert keys.check(again, "session") is None


def test_a_link_works_once(accounts: Accounts, timeline: Timeline) -> None:
    keys = Keys(timeline)
    old, _ = keys.link("mara", **BY)
    new, _ = keys.link("mara", **BY)
    assert keys.use(old) is None
    assert keys.check(new, "link", datetime.now(UTC) + timedelta(hours=25)) is None
    assert keys.use(new) is not None and keys.use(new) is None


def test_no_secret_stays_behind(home: Settings, accounts: Accounts, timeline: Timeline) -> None:
    keys = Keys(timeline)
    accounts.choose_password("mara", PASSWORD, **BY)
    shown = [
        keys.token("mara", scopes=["git"], **BY)[0],
        keys.session("mara", why="signed in")[0],
        keys.link("mara", **BY)[0],
    ]
    timeline.engine.dispose()
    files = [path for path in home.home.rglob("*") if path.is_file()]
    stored = b"".join(path.read_bytes() for path in files)
    assert b"mara" in stored
    for secret in (PASSWORD, *(one.rpartition("_")[2] if "_" in one[21:] else one[21:] for one in shown)):
        assert secret.encode() not in stored
    assert all(one.encode() not in stored for one in shown)
    assert b"$argon2id$" in Path(home.home / "orrery.db").read_bytes() + stored


def test_every_permission_says_who_has_it_and_what_it_means() -> None:
    from typing import get_args

    assert set(get_args(Permission)) == set(ALLOWED) == set(MEANING)
    for permission, roles in ALLOWED.items():
        assert "administrator" in roles and roles <= set(ROLES), permission
    assert ALLOWED["read"] == set(ROLES) and ALLOWED["accounts"] == {"administrator"}
    assert not ALLOWED["review"] & {"scientist", "operator", "viewer"}  # who makes and who runs does not approve


@given(st.sampled_from(ROLES), st.sampled_from(["*", "tides", "team/sea"]), st.sampled_from(["", "tides", "flights"]))
def test_a_role_holds_where_it_was_given_and_nowhere_else(role: str, place: str, project: str) -> None:
    principal = Principal("mara", (grant(role, place),), {"tides": "sea"})
    here = place == "*" or project == "tides"
    for permission, roles in ALLOWED.items():
        assert principal.may(permission, project) == (here and role in roles)
    narrowed = Principal("mara", (grant(role, place),), {"tides": "sea"}, project="tides")
    assert not narrowed.may("read", "flights") and not narrowed.may("read", "")


def test_a_sign_off_is_answered_by_who_may() -> None:
    quality = Principal("mara", (Grant("reviewer:quality", "tides"), Grant("viewer", "*")))
    assert quality.may_sign("quality", "tides")
    assert not quality.may_sign("legal", "tides") and not quality.may_sign("quality", "flights")
    assert Principal("li", (Grant("reviewer", "*"),)).may_sign("legal", "tides")
    assert not Principal("olaf", (Grant("scientist", "*"), Grant("operator", "*"))).may_sign("quality", "tides")


@BOTH
def test_wrong_passwords_cost_more_and_more_patience(timeline: Timeline) -> None:
    now = [datetime.now(UTC)]

    def later(seconds: float) -> None:
        now[0] += timedelta(seconds=seconds)

    def fresh() -> Patience:  # a control plane that has just started knows as much as the one before
        return Patience(timeline, "key", lambda: now[0])

    for _ in range(FREE):
        fresh().check("mara")
        fresh().wrong("mara")
    with pytest.raises(NotAllowed):
        fresh().check("mara")
    Patience(timeline, "another key", lambda: now[0]).check("mara")
    fresh().check("li")
    later(1.01)
    fresh().check("mara")
    fresh().wrong("mara")
    later(1.01)
    with pytest.raises(NotAllowed):  # it doubled
        fresh().check("mara")
    for _ in range(30):
        fresh().wrong("mara")
    later(LONGEST_WAIT + 0.01)
    fresh().check("mara")
    fresh().wrong("mara")
    later(LONGEST_WAIT + 0.01)
    fresh().right("mara")
    fresh().wrong("mara")
    fresh().check("mara")
    for _ in range(FREE):
        fresh().wrong("mara")
    later(FORGOTTEN.total_seconds() + 1)
    fresh().wrong("li")  # what is forgotten goes when somebody else is counted
    fresh().wrong("mara")
    fresh().check("mara")


def test_a_name_that_was_typed_is_not_stored(home: Settings, timeline: Timeline) -> None:
    Patience(timeline, "key").wrong(PASSWORD)
    timeline.engine.dispose()
    assert all(PASSWORD.encode() not in path.read_bytes() for path in home.home.rglob("*") if path.is_file())


def test_a_flood_of_denials_is_counted_not_written(timeline: Timeline) -> None:
    now = [0.0]
    denials = Denials(timeline, lambda: now[0])
    for _ in range(500):
        denials.note("mara", "release", "mara may not release in tides.", project="tides")
    denials.note("li", "release", "li may not release in tides.", project="tides")
    now[0] += 61
    denials.note("mara", "release", "mara may not release in tides.", project="tides")
    found = [(event.actor, event.data.get("more", 0)) for event in timeline.read(kinds=["denied"])]
    assert found == [("mara", 0), ("li", 0), ("mara", 499)]
