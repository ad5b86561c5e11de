"""Settings come from the environment; what is not understood is refused, and children see what their parent saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from orrery.errors import NotUnderstood
from orrery.settings import load


def test_a_child_sees_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_JOURNAL_FULL", "shed")
    monkeypatch.setenv("ORRERY_JOURNAL_FSYNC", "always")
    monkeypatch.setenv("ORRERY_WORKERS", "3")
    settings = load(tmp_path)
    assert (settings.journal_full, settings.journal_fsync, settings.workers) == ("shed", "always", 3)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert load() == settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ORRERY_JOURNAL_FULL", "drop", "Use refuse or shed."),
        ("ORRERY_JOURNAL_FSYNC", "sometimes", "Use interval, always or never."),
        ("ORRERY_CLOCK", "sundial", "Use system or replay."),
        ("ORRERY_WORKERS", "many", "Give a whole number."),
        ("ORRERY_WORKER", "2", "Unset it"),
    ],
)
def test_what_is_not_understood_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(NotUnderstood, match=said):
        load(tmp_path)
