"""What is to be delivered, and what became of it: a table, and the place on the timeline up to which it was made.

What follows from an event is filed in the transaction that moves the place on: once, however often it is tried.
Sending is at least once: what was sent when the power went is sent again, under the same id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from orrery.notify import tables
from orrery.timeline.store import Timeline

WAITING, SENT, FAILED = "waiting", "sent", "failed"
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 3600.0
"""Seconds until what failed is tried again: the first, doubled each time up to the longest."""
GIVE_UP = 3 * 86400.0
"""Seconds after the first attempt when it is given up."""
KEPT = 90 * 86400.0
"""Seconds that the record of what was sent is kept; of what came in it is kept for ever: it must not come again."""
IN_ORDER = ("hook/", "fetch/")
"""Begin of targets that get one thing after the other."""


@dataclass(frozen=True)
class Delivery:
    """One thing for one receiver.

    Parameters
    ----------
    id : the same in every attempt.
    target : ``mail/ACCOUNT``, ``chat/PROJECT/NAME``, ``hook/PROJECT/NAME`` or ``fetch/PROJECT``.
    model, seq : what it is about: the model, and the event.
    body : what is sent.
    attempts, tried : how often, and when first, in seconds since 1970.
    """

    id: str
    target: str
    model: str
    seq: int
    body: dict[str, Any]
    attempts: int = 0
    tried: float = 0.0


@dataclass(frozen=True)
class Record:
    """How it goes with a receiver.

    Parameters
    ----------
    last : when something was delivered last, in seconds since 1970; 0 if never.
    waiting, failed : how much waits, and how much was given up.
    said : why the last attempt failed; empty where it did not.
    """

    last: float = 0.0
    waiting: int = 0
    failed: int = 0
    said: str = ""


class Outbox:
    """The deliveries of one orrery.

    Parameters
    ----------
    timeline : whose database it is in.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def place(self) -> int:
        """Return the seq of the last event that deliveries were made of."""
        with self._timeline.reading() as connection:
            query = sa.select(tables.cursor.c.seq).where(tables.cursor.c.name == "timeline")
            return int(connection.execute(query).scalar_one())

    def file(self, found: Sequence[Delivery], *, after: int, upto: int) -> bool:
        """File what follows from the events up to a place; nothing, if somebody else did."""
        with self._timeline.engine.begin() as connection:
            here = (tables.cursor.c.name == "timeline") & (tables.cursor.c.seq == after)
            if connection.execute(sa.update(tables.cursor).where(here).values(seq=upto)).rowcount != 1:
                return False
            for one in found:
                _insert(connection, one)
        return True

    def add(self, delivery: Delivery) -> bool:
        """File one thing; say whether it is new."""
        with self._timeline.engine.begin() as connection:
            return _insert(connection, delivery)

    def due(self, now: float) -> list[Delivery]:
        """Return what is to be tried now, the oldest first; of those in order only the first that waits."""
        waits = sa.select(tables.deliveries).where(tables.deliveries.c.state == WAITING)
        waits = waits.order_by(tables.deliveries.c.seq, tables.deliveries.c.id)
        found, seen = [], set[str]()
        with self._timeline.reading() as connection:
            for row in connection.execute(waits):
                behind = row.target.startswith(IN_ORDER) and row.target in seen
                seen.add(row.target)
                if row.due <= now and not behind:
                    body = json.loads(row.body)
                    found.append(Delivery(row.id, row.target, row.model, row.seq, body, row.attempts, row.tried))
        return found

    def sent(self, delivery: Delivery, now: float, said: str = "") -> None:
        """Note that it was delivered."""
        self._end(delivery, SENT, now, said)

    def given_up(self, delivery: Delivery, now: float, said: str) -> None:
        """Note that it never will be."""
        self._end(delivery, FAILED, now, said)

    def failed(self, delivery: Delivery, now: float, said: str) -> bool:
        """Note an attempt that failed; say whether another one will be made."""
        tried = delivery.tried or now
        if now - tried >= GIVE_UP:
            self.given_up(delivery, now, said)
            return False
        pause = min(FIRST_PAUSE * 2 ** min(delivery.attempts, 20), LONGEST_PAUSE)
        self._change(delivery, attempts=delivery.attempts + 1, tried=tried, due=now + pause, said=said[:300])
        return True

    def drop(self, target: str, now: float, said: str) -> None:
        """Give up all that waits for a receiver."""
        mine = (tables.deliveries.c.target == target) & (tables.deliveries.c.state == WAITING)
        with self._timeline.engine.begin() as connection:
            values = {"state": FAILED, "ended": now, "said": said[:300], "body": "{}"}
            connection.execute(sa.update(tables.deliveries).where(mine).values(values))

    def prune(self, now: float) -> None:
        """Forget what was delivered long ago."""
        table = tables.deliveries.c
        old = (table.state != WAITING) & (table.ended < now - KEPT) & table.target.not_like("fetch/%")
        with self._timeline.engine.begin() as connection:
            connection.execute(sa.delete(tables.deliveries).where(old))

    def records(self, prefix: str = "") -> dict[str, Record]:
        """Return how it goes with each receiver whose name begins so."""
        table = tables.deliveries.c
        query = sa.select(table.target, table.state, table.ended, table.said, table.seq).order_by(table.seq, table.id)
        if prefix:
            query = query.where(sa.func.substr(table.target, 1, len(prefix)) == prefix)
        made: dict[str, dict[str, Any]] = {}
        with self._timeline.reading() as connection:
            for row in connection.execute(query):
                one = made.setdefault(row.target, {"last": 0.0, "waiting": 0, "failed": 0, "said": ""})
                if row.state == SENT:
                    one["last"], one["said"] = max(one["last"], row.ended), ""
                else:
                    one["waiting" if row.state == WAITING else "failed"] += 1
                    one["said"] = row.said or one["said"]
        return {target: Record(**one) for target, one in made.items()}

    def _end(self, delivery: Delivery, state: str, now: float, said: str) -> None:
        # What was sent is on the timeline; what it said need not be here a second time.
        self._change(delivery, state=state, ended=now, attempts=delivery.attempts + 1, said=said[:300], body="{}")

    def _change(self, delivery: Delivery, **values: object) -> None:
        with self._timeline.engine.begin() as connection:
            mine = tables.deliveries.c.id == delivery.id
            connection.execute(sa.update(tables.deliveries).where(mine).values(values))


def _insert(connection: sa.Connection, one: Delivery) -> bool:
    known = sa.select(tables.deliveries.c.id).where(tables.deliveries.c.id == one.id)
    if connection.execute(known).first() is not None:
        return False
    row: Mapping[str, object] = {
        "id": one.id,
        "target": one.target,
        "model": one.model,
        "seq": one.seq,
        "body": json.dumps(one.body, ensure_ascii=False),
        "state": WAITING,
        "attempts": 0,
        "due": 0.0,
        "tried": 0.0,
        "ended": 0.0,
        "said": "",
    }
    connection.execute(sa.insert(tables.deliveries).values(row))
    return True
