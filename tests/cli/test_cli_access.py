"""Accounts and tokens from the command line."""

from __future__ import annotations

import base64
import subprocess
import sys
import time

from cli.conftest import Command, environment
from orrery.app import Orrery
from orrery.settings import Settings


def test_accounts_and_tokens(orrery: Command, home: Settings) -> None:
    added = orrery("user", "add", "mara", "--role", "administrator", "--email", "mara@example.org")
    assert added.code == 0 and "/-/welcome?key=orrery_l" in added.out, added.err
    assert orrery("user", "add", "robot", "--owner", "mara", "--role", "scientist", "--on", "tides").code == 0
    (first, second) = orrery("user", "list", "--json").lines()
    assert first["account"] == "mara" and first["roles"] == [{"role": "administrator", "on": "*", "group": False}]
    assert second["owner"] == "mara" and second["kind"] == "service"
    made = orrery("token", "create", "robot", "--scope", "git", "--label", "for CI", "--lasts", "2d")
    token = made.out.strip()
    assert made.code == 0 and token.startswith("orrery_t") and token not in made.err
    listed = orrery("token", "list")
    assert "for CI" in listed.out and token not in listed.out and token[21:] not in listed.out
    (about,) = orrery("token", "list", "--json").lines()
    assert set(about) == {"id", "account", "label", "scopes", "project", "since", "until", "seen", "revoked"}
    clumsy = orrery("token", "revoke", token, "--why", "It leaked.")
    assert clumsy.code == 1 and about["id"] in clumsy.err
    assert orrery("token", "revoke", about["id"]).code == 2  # a reason is asked for
    assert orrery("token", "revoke", about["id"], "--why", "It leaked.").code == 0
    last = orrery("user", "disable", "mara", "--why", "She left.")
    assert last.code == 1 and "last administrator" in last.err
    opened = Orrery(home)
    assert opened.keys.check(token, "token") is None
    told = "".join(str(event.to_json()) for event in opened.timeline.read())
    assert "It leaked." in told and token not in told and token[21:] not in told


def test_teams_and_what_is_refused(orrery: Command) -> None:
    assert orrery("user", "add", "li", "--password-stdin").code == 1  # nothing is there to read
    assert orrery("user", "add", "li").code == 0
    assert orrery("user", "list", "--json").lines()[0]["has_password"] is False
    assert orrery("user", "grant", "li", "viewer", "--on", "team/sea").code == 0
    assert orrery("team", "assign", "tides", "sea").code == 0
    assert orrery("team", "list", "--json").lines() == [{"project": "tides", "team": "sea"}]
    assert orrery("user", "grant", "li", "king").code == 1
    assert orrery("user", "ungrant", "li", "viewer", "--why", "No.").code == 1  # it is of the team, not of everything
    assert orrery("user", "ungrant", "li", "viewer", "--on", "team/sea", "--why", "Moved.").code == 0
    assert orrery("token", "create", "li").code == 1
    assert orrery("token", "create", "li", "--scope", "everything").code == 1
    assert orrery("user", "add", "x", "--role", "king").code == 1
    assert [one["account"] for one in orrery("user", "list", "--json").lines()] == ["li"]


def test_ones_own_password_and_a_factor_that_is_lost(orrery: Command, home: Settings) -> None:
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.twofactor.totp import TOTP

    old, fresh, by = "the moons of Jupiter are four", "nine planets less one make eight", {"by": "t", "why": "Test."}
    name = environment(home)["ORRERY_ACTOR"]
    opened = Orrery(home)
    opened.accounts.add(name, **by)
    opened.accounts.choose_password(name, old, **by)
    session, token = opened.keys.session(name, why="in")[0], opened.keys.token(name, scopes=["api"], **by)[0]

    def changed(*lines: str, tokens: bool = False) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "orrery.cli.main", "user", "password", "--password-stdin"]
        given, env = "\n".join(lines) + "\n", environment(home)
        argv += ["--tokens"] if tokens else []
        return subprocess.run(argv, env=env, input=given, capture_output=True, text=True, timeout=120)

    assert changed("not the one that it is", fresh).returncode == 1
    assert (
        changed(old, "password1234").returncode == 1 and "first that are tried" in changed(old, "password1234").stderr
    )
    assert opened.accounts.fits(name, old) and opened.keys.check(session, "session")
    assert changed(old, fresh).returncode == 0 and opened.accounts.fits(name, fresh)
    assert opened.keys.check(session, "session") is None and opened.keys.check(token, "token")
    assert changed(fresh, old, tokens=True).returncode == 0 and opened.keys.check(token, "token") is None

    device = TOTP(base64.b32decode(opened.factors.begin(name, "test").secret), 6, SHA1(), 30)
    assert opened.factors.confirm(name, device.generate(int(time.time()) - 30).decode())
    assert changed(old, fresh, "000000").returncode == 1 and opened.accounts.fits(name, old)
    assert changed(old, fresh, device.generate(int(time.time()) + 25).decode()).returncode == 0
    assert orrery("user", "list", "--json").lines()[0]["factor"] is True
    assert orrery("user", "unfactor", name).code == 2, "a reason is asked for"
    assert orrery("user", "unfactor", name, "--why", "The device is lost.").code == 0
    assert orrery("user", "list", "--json").lines()[0]["factor"] is False
