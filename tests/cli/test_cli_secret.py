"""Secrets from the command line: their values go in by standard input, and never come out."""

from __future__ import annotations

import subprocess
import sys

from cli.conftest import Command, environment
from orrery.app import Orrery
from orrery.settings import Settings

VALUE = "the moons of Jupiter are four"


def test_secrets(orrery: Command, home: Settings) -> None:
    argv = [sys.executable, "-m", "orrery.cli.main", "secret", "set", "tides", "warehouse", "--json"]
    done = subprocess.run(argv, env=environment(home), input=VALUE + "\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and VALUE not in done.stdout + done.stderr, done.stderr
    assert Orrery(home).secrets.values("tides") == {"warehouse": VALUE}
    assert orrery("secret", "set", "tides", "warehouse", VALUE).code == 2  # never as an argument
    assert orrery("secret", "set", "tides", "warehouse").code == 1  # nothing is there to read
    (one,) = orrery("secret", "list", "tides", "--json").lines()
    assert (one["secret"], one["by"]) == ("warehouse", "mara") and set(one) == {"project", "secret", "by", "at"}
    assert "warehouse" in orrery("secret", "list").out and orrery("secret", "list", "other", "--json").lines() == []
    assert orrery("secret", "rotate").code == 2 and orrery("secret", "rotate", "--why", "Yearly.").code == 0
    assert Orrery(home).secrets.values("tides") == {"warehouse": VALUE}
    assert orrery("secret", "remove", "tides", "warehouse").code == 2  # a reason is asked for
    assert orrery("secret", "remove", "tides", "warehouse", "--why", "Closed.").code == 0
    assert orrery("secret", "remove", "tides", "warehouse", "--why", "Closed.").code == 1
    told = "".join(str(event.to_json()) for event in Orrery(home).timeline.read())
    assert "Closed." in told and VALUE not in told
