"""From a push to a share of the requests, to all of them; and back, without anybody noticing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from acceptance.support import PIPELINE, QUIET, Platform, cli, wait, write_project
from orrery.types import PRODUCTION

pytestmark = pytest.mark.slow

CANARY = (
    QUIET.replace(
        "[rollout.redesign]\nshadow = false\n",
        '[rollout.redesign]\nshadow = false\ncanary = ["30%", "60%"]\n',
    )
    + '[rollout.probation]\nrequests = 20\ntime = "2s"\nlatency = 20.0\n'
)
ODD = 0.123456
"""A value that no data has, and that the bad version stumbles over."""
BAD = PIPELINE.replace(
    "        return features.to_numpy()",
    f"        if (features['moon'] == {ODD}).any():\n            raise KeyError('moon')\n"
    "        return features.to_numpy()",
)


@contextlib.contextmanager
def asked(platform: Platform) -> Iterator[list[tuple[int, int]]]:
    """Ask all along, now and then for the odd value; gives status and version of each, and each has to be answered."""
    answers: list[tuple[int, int]] = []
    done = threading.Event()

    def ask(start: int) -> None:
        number = start
        while not done.wait(0.03):
            number += 1
            found = platform.ask(moon=ODD if number % 3 == 0 else 0.5)
            answers.append((found.status_code, found.json().get("version", 0)))

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask, start) for start in range(2)]
        try:
            yield answers
        finally:
            done.set()
        for one in asking:
            one.result()
    assert answers and {status for status, _ in answers} == {200}


def pushed(platform: Platform, version: int, **files: str) -> None:
    """Push, and approve what comes of it."""
    platform.pushed(write_project(platform.tides, **files), "tides", f"for version {version}")
    wait(lambda: version in [one.number for one, _, _ in platform.orrery.model("tides").waiting()])
    path = f"/api/models/tides/versions/{version}/approve"
    assert platform.api("POST", path, json={"why": "good"}).status_code == 201


def test_a_push_grows_to_champion_and_a_bad_one_is_taken_back_unfelt(platform: Platform) -> None:
    home, orrery = platform.settings.home, platform.orrery

    def champion() -> int | None:
        return orrery.model("tides").lane(PRODUCTION).champion

    pushed(platform, 2, toml=CANARY)  # the policy in force is version 1's: it takes over at once
    wait(lambda: champion() == 2)
    with asked(platform) as answers:
        pushed(platform, 3, toml=CANARY)
        wait(lambda: champion() == 3)
        wait(lambda: platform.served() == 3)
    assert {2, 3} <= {version for _, version in answers}
    (challenged,) = [one for one in platform.events("tides", "challenged") if one.data["role"] == "canary"]
    (shifted,) = platform.events("tides", "shifted")
    assert (challenged.data["share"], shifted.data["share"]) == (0.3, 0.6)
    assert "At 30 %:" in shifted.why and "0 failures" in shifted.why and "Next step: 60 %." in shifted.why
    told = cli(home, "timeline", "tides", "--at", shifted.occurred_at.isoformat())
    assert "production: v2" in told.stdout and "v3 beside it, as canary, 60 %." in told.stdout

    with asked(platform) as answers:
        pushed(platform, 4, toml=CANARY, pipeline=BAD)
        wait(lambda: any(one.version == 4 for one in platform.events("tides", "failed")))
        wait(lambda: 4 not in orrery.model("tides").lane(PRODUCTION).challengers)
    (failed,) = [one for one in platform.events("tides", "failed") if one.version == 4]
    assert failed.actor == "orrery/serving" and "(canary): It failed on 3 of its first" in failed.why
    assert "which version 3 answered instead" in failed.why
    assert champion() == 3 and {version for _, version in answers} <= {3, 4}
    assert [one.version for one in platform.events("tides", "issue_opened") if "taken back" in one.why] == [4]

    with asked(platform) as answers:  # somebody insists: it is taken back from the champion's place, too
        done = cli(home, "promote", "tides", "4", "--why", "it must be something else", "--as", "mara")
        assert done.returncode == 0, done.stderr
        wait(lambda: bool(platform.events("tides", "rolled_back")))
        wait(lambda: platform.ask(moon=ODD).json()["version"] == 3)
    (back,) = platform.events("tides", "rolled_back")
    assert (back.version, back.actor, back.data["previous"]) == (3, "orrery/serving", 4)
    assert not [action for action in orrery.due("tides") if action.version == 4 and action.environment == PRODUCTION]

    tried = cli(home, "promote", "tides", "2", "--share", "25%", "--why", "compare with the old one", "--as", "mara")
    assert tried.returncode == 0, tried.stderr
    assert "v2 canary, 25 %" in cli(home, "status").stdout
    with asked(platform) as answers:
        wait(lambda: {2, 3} <= {version for _, version in answers})
    refused = cli(home, "promote", "tides", "2", "--share", "much", "--why", "x", "--as", "mara")
    assert refused.returncode == 1 and "'much' is not a share" in refused.stderr
