"""Channels, webhooks and remotes by the real command line: what is shown once, and what is never shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command, environment
from orrery.app import Orrery
from orrery.settings import Settings


@pytest.fixture
def fed(home: Settings) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command with something on its standard input."""

    def run(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "orrery.cli.main", *map(str, arguments)]
        return subprocess.run(
            argv, input=text, env=environment(home), capture_output=True, text=True, timeout=120, cwd=home.home
        )

    return run


def test_a_key_is_shown_once_and_an_address_never(
    orrery: Command, opened: Orrery, fed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    model = opened.models()[0]
    made = orrery(
        "webhook", "add", "https://hooks.example/x?t=s3cr3t", "--on", model, "--kinds", "promoted,rolled_back"
    )
    assert made.code == 0 and made.out.startswith("whsec_"), made.err
    refused = orrery("webhook", "add", "https://hooks.example/", "--on", model, "--kinds", "conquered", "--name", "two")
    assert refused.code == 1 and "conquered" in refused.err
    (line,) = orrery("webhook", "list", model, "--json").lines()
    assert (line["place"], line["kinds"], line["last"]) == ("https://hooks.example", ["promoted", "rolled_back"], None)

    url = "json://user:s3cr3t@chat.example/room"
    added = fed(url, "channel", "add", "team", "--on", model, "--about", "reviews")
    assert added.returncode == 0, added.stderr
    assert fed("", "channel", "add", "none", "--on", model).returncode == 1
    assert [one["place"] for one in orrery("channel", "list", "--json").lines()] == ["json://"]
    said = [orrery(*words) for words in (("channel", "list"), ("webhook", "list"), ("timeline", "--json"))]
    assert all(one.code == 0 and "s3cr3t" not in one.out and made.out.strip() not in one.out for one in said)
    assert orrery("webhook", "remove", "webhook", "--on", model, "--why", "Replaced.").code == 0
    assert orrery("webhook", "list", model, "--json").lines() == []


def test_people_and_remotes(
    orrery: Command, opened: Orrery, fed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert orrery("user", "notify", "nobody", "all").code == 1
    assert orrery("user", "add", "mara", "--email", "mara@example.org").code == 0
    assert orrery("user", "notify", "mara", "reviews", "--to", "m@example.org").code == 0
    assert opened.channels.wishes()["mara"] == ("reviews", "m@example.org")

    made = fed("mine\ntoken", "remote", "set", "waves", "https://git.example/a/waves.git", "--own-secret", "--token")
    assert made.returncode == 0 and "/hooks/waves/gitlab" in made.stderr and "mine" not in made.stdout + made.stderr
    assert opened.remotes.opened("waves") == ("token", "mine")
    again = orrery("remote", "set", "waves", "https://git.example/a/waves.git")
    assert again.code == 0 and opened.remotes.opened("waves") == ("", again.out.strip())
    (line,) = orrery("remote", "list", "--json").lines()
    assert (line["project"], line["branch"], line["private"]) == ("waves", "main", False)
    assert "waves" not in opened.models()  # a model begins with its first commit
    gone = orrery("remote", "set", "waves", f"file://{tmp_path}/nowhere", "--private")
    assert gone.code == 0 and orrery("remote", "fetch", "waves").code == 1
    assert orrery("remote", "remove", "waves", "--why", "It moved here.").code == 0
    assert orrery("remote", "list", "--json").lines() == []


@pytest.mark.parametrize("mail", ["nonsense", "smtp://u:s3cr3t@h/?from=a@b", "smtps://u@h/?from=a@b"])
def test_a_mail_server_that_is_not_understood_starts_nothing(orrery: Command, mail: str) -> None:
    done = orrery("up", ORRERY_MAIL=mail)
    assert done.code == 1 and "ORRERY_MAIL" in done.err and "s3cr3t" not in done.err
