"""Whatever is done to an exported log, or to the database by who has its files, is found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orrery.errors import NotUnderstood
from orrery.testing.timeline_contract import note
from orrery.timeline.anchor import Anchor
from orrery.timeline.event import GENESIS, hash_of, seal
from orrery.timeline.store import Timeline, events
from orrery.timeline.verify import exported, verify

Log = list[dict[str, Any]]
LENGTH = 8
AT = datetime(2026, 3, 3, 12, tzinfo=UTC)
FIELDS = [
    *("seq", "id", "occurred_at", "recorded_at", "model", "version", "environment", "kind", "actor", "why", "data"),
    *("prev_hash", "hash"),
]


def written() -> Log:
    found, prev = [], GENESIS
    for number in range(1, LENGTH + 1):
        data = {"n": number, "share": number / 7, "list": [1, {"deep": None}], "text": "Ä"}
        draft = note(f"event {number}", id=f"{number:032x}", data=data, version=number % 3 or None, environment="p")
        event = seal(draft, seq=number, recorded_at=AT, prev_hash=prev)
        prev = event.hash
        found.append(event.to_json())
    return found


WHOLE = written()
ANCHOR = [Anchor(seq=LENGTH, hash=WHOLE[-1]["hash"], at=AT)]
values = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 20), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=9)
)
places = st.integers(0, LENGTH - 1)


@st.composite
def changed(draw: st.DrawFn) -> Log:
    """Put another value into a field, at the top or deep in the data."""
    log = copy.deepcopy(WHOLE)
    event = log[draw(places)]
    holder, key = draw(
        st.sampled_from(
            [(event, name) for name in FIELDS]
            + [(event["data"], name) for name in event["data"]]
            + [(event["data"]["list"][1], "deep")]
        )
    )
    holder[key] = draw(values.filter(lambda one: repr(one) != repr(holder[key])))
    return log


@st.composite
def enriched(draw: st.DrawFn) -> Log:
    """Add a field that was not there, or take one away."""
    log = copy.deepcopy(WHOLE)
    event = log[draw(places)]
    if draw(st.booleans()):
        event[draw(st.text(max_size=5).filter(lambda name: name not in event))] = draw(values)
    else:
        del event[draw(st.sampled_from(FIELDS))]
    return log


@st.composite
def moved(draw: st.DrawFn) -> Log:
    """Remove some, or put them into another order, or have some twice."""
    kept = draw(st.lists(places, max_size=LENGTH + 3).filter(lambda order: order != list(range(LENGTH))))
    return [copy.deepcopy(WHOLE[place]) for place in kept]


@st.composite
def forged(draw: st.DrawFn) -> Log:
    """Put an event in, with hashes that fit: of itself, or of all that follow as well.

    Not after the last one: there it is an append like any other, which only the next anchor makes final.
    """
    log, place = copy.deepcopy(WHOLE), draw(places)
    log.insert(place, {**copy.deepcopy(WHOLE[draw(places)]), "why": draw(st.text(min_size=1, max_size=9)), "id": "x"})
    return resealed(log, place, to_the_end=draw(st.booleans()))


@st.composite
def rewritten(draw: st.DrawFn) -> Log:
    """Change or remove an event and write all that follows anew."""
    log, place = copy.deepcopy(WHOLE), draw(places)
    if draw(st.booleans()):
        log[place]["why"] = draw(st.text(max_size=9).filter(lambda text: text != WHOLE[place]["why"]))
    else:
        del log[place]
    return resealed(log, place, to_the_end=True)


def resealed(log: Log, start: int, *, to_the_end: bool) -> Log:
    for place in range(start, len(log) if to_the_end else start + 1):
        log[place]["seq"] = place + 1
        log[place]["prev_hash"] = log[place - 1]["hash"] if place else GENESIS
        log[place]["hash"] = hash_of(log[place])
    return log


def found(log: Log, file: Path) -> bool:
    """Say whether the check of the exported file finds what was done."""
    file.write_text("".join(f"{json.dumps(event)}\n" for event in log))
    try:
        return not verify(exported(file), anchors=ANCHOR).holds
    except (NotUnderstood, TypeError):
        return True


def test_the_whole_log_holds(tmp_path: Path) -> None:
    assert not found(WHOLE, tmp_path / "log")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(log=st.one_of(changed(), enriched(), moved(), forged(), rewritten()))
def test_whatever_is_done_to_an_exported_log_is_found(log: Log, tmp_path: Path) -> None:
    assert found(log, tmp_path / "log")


@given(log=rewritten())
def test_without_an_anchor_a_rewritten_log_is_not_found(log: Log) -> None:
    """The control: the chain alone cannot find this, so it is the anchor that does."""
    assert verify(log).holds


def test_a_field_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "log"
    lines = [json.dumps(event) for event in WHOLE]
    lines[2] = lines[2].replace('"why": ', '"why": "what people would read", "why": ')
    file.write_text("\n".join(lines))
    with pytest.raises(NotUnderstood, match="twice"):
        list(exported(file))


# --- in the database ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timeline]:
    """A timeline whose database protects itself no more: who has its files took the triggers away."""
    from orrery.timeline import schema
    from orrery.timeline.clock import SystemClock
    from orrery.timeline.store import connect

    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    else:
        url = f"sqlite:///{tmp_path_factory.mktemp('db') / 'orrery.db'}"
    engine = connect(url)
    schema.upgrade(engine)
    timeline = Timeline(engine, SystemClock())
    timeline.append([note(f"event {number}", data={"n": number}, version=number) for number in range(1, LENGTH + 1)])
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="append-only"), connection.begin():
        connection.execute(sa.update(events).values(why="x"))
    names = {
        "sqlite": ["events_no_update", "events_no_delete", "events_no_replace"],
        "postgresql": ["events_no_change ON events", "events_no_truncate ON events"],
    }
    with engine.begin() as connection:
        for name in names[request.param]:
            connection.execute(sa.text(f"DROP TRIGGER {name}"))
    yield timeline
    engine.dispose()


Attack = Callable[[sa.Connection], None]
TEXTS = ("id", "model", "environment", "kind", "actor", "why", "prev_hash", "hash")


@st.composite
def attacks(draw: st.DrawFn) -> Attack:
    """One statement, or a few, that leave other rows than there were."""
    one, other = draw(st.permutations(range(1, LENGTH + 1)))[:2]
    of_one = events.c.seq == one
    kind = draw(st.sampled_from(["text", "instant", "version", "data", "delete", "swap", "truncate", "insert"]))

    def attack(connection: sa.Connection) -> None:
        row = dict(connection.execute(sa.select(events).where(of_one)).one()._mapping)
        if kind == "text":
            connection.execute(sa.update(events).where(of_one).values({column: text}))
        elif kind == "instant":
            earlier = "2013-01-01T00:00:00.000001Z"
            connection.execute(sa.update(events).where(of_one).values({instant: earlier}))
        elif kind == "version":
            connection.execute(sa.update(events).where(of_one).values(version=None if other % 2 else 99))
        elif kind == "data":
            connection.execute(sa.update(events).where(of_one).values(data=json.dumps({"n": one + 0.5})))
        elif kind == "delete":
            connection.execute(sa.delete(events).where(of_one))
        elif kind == "truncate":
            connection.execute(sa.delete(events).where(events.c.seq >= one))
        elif kind == "swap":
            for was, becomes in ((one, 1000), (other, one), (1000, other)):
                connection.execute(sa.update(events).where(events.c.seq == was).values(seq=becomes))
        else:
            connection.execute(sa.insert(events).values({**row, "seq": LENGTH + 1, "id": "copy"}))

    column, text = draw(st.sampled_from(TEXTS)), draw(st.text("abc-", min_size=1, max_size=5))
    instant = draw(st.sampled_from(["occurred_at", "recorded_at"]))
    return attack


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(attack=attacks())
def test_whatever_is_done_to_the_database_is_found(opened: Timeline, attack: Attack) -> None:
    seq, head = opened.head()
    anchors = [Anchor(seq=seq, hash=head, at=AT)]
    assert verify((event.to_json() for event in opened.read()), anchors=anchors).holds
    with opened.engine.connect() as connection:
        whole = [dict(row._mapping) for row in connection.execute(sa.select(events).order_by(events.c.seq))]
    try:
        with opened.engine.begin() as connection:
            attack(connection)
        assert not verify((event.to_json() for event in opened.read()), anchors=anchors).holds
    finally:
        with opened.engine.begin() as connection:
            connection.execute(sa.delete(events))
            connection.execute(sa.insert(events), whole)


def test_a_database_that_was_written_anew_is_found_by_an_anchor(opened: Timeline) -> None:
    seq, head = opened.head()
    log = [event.to_json() for event in opened.read()]
    log[1]["actor"] = "somebody-else"
    with opened.engine.begin() as connection:
        for event in resealed(log, 1, to_the_end=True):
            row = {name: event[name] for name in ("actor", "prev_hash", "hash")}
            connection.execute(sa.update(events).where(events.c.seq == event["seq"]).values(row))
    after = [event.to_json() for event in opened.read()]
    assert after[1]["actor"] == "somebody-else" and verify(after).holds
    (fault,) = verify(after, anchors=[Anchor(seq=seq, hash=head, at=AT)]).faults
    assert "written anew" in fault
