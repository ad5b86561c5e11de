"""Channels, wishes, remotes and deliveries in both databases; and what a migration finds is told to nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from orrery.access.vault import Vault
from orrery.errors import Conflict, NotFound
from orrery.notify.channels import Channels
from orrery.notify.outbox import GIVE_UP, KEPT, Delivery, Outbox
from orrery.source.remote import Remotes
from orrery.timeline import schema
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline

both = pytest.mark.parametrize(
    "timeline", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)
ACT = {"by": "olga", "why": "For the test."}


def delivery(number: int, target: str = "hook/tides/ci") -> Delivery:
    return Delivery(f"d{number}", target, "tides", number, {"n": number})


@both
def test_channels_wishes_and_remotes(timeline: Timeline, tmp_path: Path) -> None:
    channels, remotes = Channels(timeline, Vault(tmp_path)), Remotes(timeline, Vault(tmp_path))
    made, secret = channels.add("tides", "ci", "hook", "https://h.example/x", ["promoted"], False, "olga", "x")
    assert channels.opened(made) == ("https://h.example/x", secret) and channels.all("waves") == []
    assert (made.private, made.dead, made.after) == (False, "", timeline.head()[0])
    with pytest.raises(Conflict):
        channels.add("tides", "ci", "hook", "https://h.example/x", ["*"], True, "olga", "x")
    channels.give_up("tides", "ci")
    assert channels.get("tides", "ci").dead
    channels.remove("tides", "ci", "olga", "x")
    with pytest.raises(NotFound):
        channels.get("tides", "ci")
    channels.wish("mara", "reviews", address="m@x.example", **ACT)
    channels.wish("mara", "nothing", **ACT)
    assert channels.wishes() == {"mara": ("nothing", "m@x.example")}

    found, shown = remotes.set("tides", "https://g.example/a/tides.git", user="robot", token="t", private=True, **ACT)
    assert remotes.find("tides") == found and (found.user, found.private, found.path) == ("robot", True, "a/tides")
    assert remotes.opened("tides") == ("t", shown) and remotes.opened("waves") == ("", "")
    remotes.remove("tides", **ACT)
    assert remotes.all() == []
    kinds = [(event.kind, event.actor) for event in timeline.read(kinds=["channel", "remote"])]
    assert kinds == [("channel", "olga")] * 2 + [("remote", "olga")] * 2


@both
def test_what_waits_is_kept_tried_and_forgotten(timeline: Timeline) -> None:
    outbox = Outbox(timeline)
    assert outbox.place() == 0
    assert outbox.file([delivery(1), delivery(2)], after=0, upto=2)
    assert not outbox.file([delivery(3)], after=0, upto=3) and outbox.place() == 2  # another was faster
    assert outbox.file([delivery(2)], after=2, upto=3)  # filed before: not again
    assert [one.id for one in outbox.due(100.0)] == ["d1"]
    assert outbox.failed(delivery(1), 100.0, "x" * 400)
    assert outbox.due(100.0) == [] and [one.id for one in outbox.due(110.0)] == ["d1"]  # and d2 does not overtake it
    (again,) = outbox.due(110.0)
    assert (again.attempts, again.tried, again.body) == (1, 100.0, {"n": 1})
    assert not outbox.failed(again, 100.0 + GIVE_UP, "no")
    assert [one.id for one in outbox.due(110.0)] == ["d2"]
    outbox.sent(delivery(2), 120.0)
    record = outbox.records("hook/")["hook/tides/ci"]
    assert (record.last, record.waiting, record.failed) == (120.0, 0, 1)
    assert outbox.add(delivery(5, "fetch/tides")) and not outbox.add(delivery(5, "fetch/tides"))
    outbox.sent(delivery(5), 120.0)
    outbox.prune(120.0 + KEPT + GIVE_UP + 100)
    assert set(outbox.records()) == {"fetch/tides"}
    assert not outbox.add(delivery(5, "fetch/tides"))  # it is known for ever


@both
def test_what_was_there_before_the_tables_is_told_to_nobody(timeline: Timeline) -> None:
    told = ("notify_channels", "notify_wishes", "notify_deliveries", "notify_cursor", "source_remotes")
    with timeline.engine.begin() as connection:
        for table in (*told, "access_factors", "access_recovery"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.execute(sa.text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0003'"))
    for number in range(3):
        timeline.append([Draft(kind="business", actor="x", why=f"{number}", model="tides")])
    schema.upgrade(timeline.engine)
    assert Outbox(timeline).place() == 3
