"""What a project's own code may use of the machine."""

from __future__ import annotations

import os

import pytest

from orrery.actions.desk import Desk
from orrery.actions.project import _threads
from orrery.app import Orrery
from orrery.settings import Settings


def test_a_training_gets_its_share_of_the_processors_unless_the_operator_says_how_many(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(Orrery(home))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert _threads(desk)["OMP_NUM_THREADS"] == str(8 // home.workers)
    for said, used in (("3", "3"), ("0", str(8 // home.workers)), ("many", str(8 // home.workers))):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert set(_threads(desk).values()) == {used}
