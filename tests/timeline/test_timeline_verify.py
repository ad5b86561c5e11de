from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.errors import NotUnderstood
from orrery.testing.timeline_contract import ManualClock, note
from orrery.timeline.event import GENESIS, hash_of, seal
from orrery.timeline.verify import exported, verify


def chain(length: int = 6) -> list[dict[str, Any]]:
    found, prev = [], GENESIS
    for number in range(length):
        event = seal(
            note(f"event {number}", data={"n": number}), seq=number + 1, recorded_at=ManualClock().now(), prev_hash=prev
        )
        prev = event.hash
        found.append(event.to_json())
    return found


def test_a_whole_chain_holds() -> None:
    verdict = verify(chain())
    assert verdict.holds and verdict.events == 6


@given(
    st.integers(0, 5), st.sampled_from(["why", "actor", "kind", "model", "occurred_at", "recorded_at", "id", "hash"])
)
def test_a_changed_field_is_found(place: int, field: str) -> None:
    events = chain()
    events[place][field] = "2013-01-01T00:00:00.000001Z" if field.endswith("_at") else "forged"
    assert not verify(events).holds


@given(st.integers(0, 5))
def test_a_changed_number_in_the_data_is_found(place: int) -> None:
    events = chain()
    events[place]["data"]["n"] += 1
    assert any("was changed" in fault for fault in verify(events).faults)


@given(st.integers(0, 4))
def test_a_removed_event_is_found(place: int) -> None:
    events = chain()
    del events[place]
    assert not verify(events).holds


@given(st.integers(0, 5), st.integers(0, 5))
def test_reordered_events_are_found(one: int, other: int) -> None:
    events = chain()
    events[one], events[other] = events[other], events[one]
    assert verify(events).holds is (one == other)


@given(st.integers(0, 6))
def test_an_inserted_event_is_found_even_with_a_right_hash(place: int) -> None:
    events = chain()
    forged = copy.deepcopy(events[min(place, 5)])
    forged |= {"why": "put in", "seq": place + 1, "prev_hash": events[place - 1]["hash"] if place else GENESIS}
    forged["hash"] = hash_of(forged)
    if place < 6:
        events.insert(place, forged)
        assert not verify(events).holds
    else:  # at the end an honest append looks the same: only a head noted elsewhere tells
        head = events[-1]["hash"]
        events.append(forged | {"prev_hash": head})
        events[-1]["hash"] = hash_of(events[-1])
        assert verify(events).holds and not verify(events, head=head).holds


def test_a_cut_end_is_found_by_the_noted_head() -> None:
    events = chain()
    assert verify(events[:4]).holds
    assert not verify(events[:4], head=events[-1]["hash"]).holds


def test_an_exported_file_is_checked_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text("\n".join(json.dumps(event) for event in chain()) + "\n\n")
    assert verify(exported(file)).holds
    file.write_text(file.read_text() + "{nonsense\n")
    with pytest.raises(NotUnderstood, match="Line 8"):
        list(exported(file))
