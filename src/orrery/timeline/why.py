"""Why a version is where it is: the chain of evidence from the first sign to what became of it, read off the timeline.

Nothing is computed anew here: every number stands on an event, and each link names its events, so that who doubts it
can look them up (``orrery timeline MODEL --all --json``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from orrery.errors import NotFound
from orrery.timeline.event import Event
from orrery.timeline.standing import standing
from orrery.timeline.state import Commit, ModelState, Run, Version
from orrery.timeline.store import Timeline
from orrery.types import PRODUCTION

LOOKS = 60
"""Looks before an alarm that are told at most."""
NEAR = timedelta(days=7)
"""How long before and after a promotion the matured loss is told."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the chain.

    Parameters
    ----------
    at : when it happened.
    what : ``alarm``, ``trigger``, ``commit``, ``data``, ``training``, ``gate``, ``review``, ``beside`` (shadow, canary,
        A/B or guard), ``promotion``, ``labels`` (what they said before and after) or ``end``.
    says : in words.
    actor : who did or decided it.
    numbers : what it was decided by.
    events : seq of the events that say so.
    """

    at: datetime
    what: str
    says: str
    actor: str
    numbers: dict[str, Any] = {}
    events: list[int] = []


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence as it grew, for a picture.

    Parameters
    ----------
    name : whose.
    limit : at which something is done; None where nothing is.
    points : when, and how strong by then.
    """

    name: str
    limit: float | None
    points: list[tuple[datetime, float]]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """By how much a version is better than the champion, for a picture: the estimate with its 95 % interval."""

    name: str
    gain: float
    low: float
    high: float
    rows: int


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer.

    Parameters
    ----------
    model, version : of what.
    outcome : where the version stands, or how it ended, in a sentence.
    links : in the order in which they happened.
    courses : evidence that grew: of the alarm, and of comparisons.
    estimates : of the gates, overall and by segment.
    """

    model: str
    version: int
    outcome: str
    links: list[Link]
    courses: list[Course]
    estimates: list[Estimate]


def chain(timeline: Timeline, model: ModelState, number: int | None = None) -> Chain:
    """Return why a version is where it is.

    Parameters
    ----------
    timeline, model : where it is read.
    number : of the version; None is the one that answers in production.

    Raises
    ------
    NotFound
        If there is no such version.
    """
    champion = model.lane(PRODUCTION).champion
    if number is None and champion is None:
        raise NotFound(f"No version of {model.name} answers in production.", todo="Name one: `orrery versions`.")
    version = model.versions.get(champion if number is None else number)  # type: ignore[arg-type]
    if version is None:
        raise NotFound(f"{model.name} has no version {number}.", todo=f"It has {len(model.versions)}.")
    return _Reader(timeline, model, version).read()


class _Reader:
    """Reads the chain of one version."""

    def __init__(self, timeline: Timeline, model: ModelState, version: Version) -> None:
        self._timeline, self._model, self._version = timeline, model, version
        self._own = list(timeline.read(model.name, version=version.number))
        self._courses: list[Course] = []
        self._estimates: list[Estimate] = []

    def read(self) -> Chain:
        model, version = self._model, self._version
        run = model.runs.get(version.run)
        links = [
            *(self._cause(run) if run else ()),
            *self._data(),
            *self._training(),
            *self._judged(),
            *self._released(),
        ]
        return Chain(
            model=model.name,
            version=version.number,
            outcome=f"Version {version.number} of {model.name} {standing(model, version)}.",
            links=sorted(links, key=lambda link: (link.at, link.events[:1])),
            courses=self._courses,
            estimates=self._estimates,
        )

    def _cause(self, run: Run) -> Iterator[Link]:
        """What asked for the training: an alarm with its looks, a commit, a schedule, a person."""
        triggered = self._last("triggered", until=run.at, run=run.id)
        alarm = None if triggered is None else (triggered.data.get("evidence") or {}).get("alarm")
        if alarm is not None:
            yield from self._alarm(int(alarm))
        if run.reason == "push" and (commit := self._model.commits.get(run.commit)) is not None:
            yield from self._commit(commit)
        if triggered is not None:
            says = f"A {run.change} is asked for: {triggered.why}"
            yield _link(triggered, "trigger", says, {"reason": run.reason, "change": run.change})

    def _alarm(self, seq: int) -> Iterator[Link]:
        """The alarm, and how the evidence for it grew."""
        alarm = next(self._timeline.read(self._model.name, after=seq - 1, before=seq + 1), None)
        if alarm is None:
            return
        monitor, promise = str(alarm.data.get("monitor")), alarm.data.get("promise")
        looks = self._looks(alarm, monitor)
        if looks:
            points = [(look.occurred_at, _statistic(look, monitor)) for look in looks]
            self._courses.append(Course(name=f"{monitor}: evidence of a change", limit=promise, points=points))
            risen = next((place for place in range(len(points), 0, -1) if points[place - 1][1] <= 1.0), 0)
            rising = looks[min(risen, len(looks) - 1)]
            says = (
                f"{monitor}: nothing speaks for a change until look {rising.data['look'] - 1}; from look "
                f"{rising.data['look']} on the evidence grows: {_growth([value for _, value in points[risen:]])}."
            )
            yield _link(rising, "alarm", says, events=[look.seq for look in looks[risen:]])
        statistic = alarm.data.get("statistic")
        blame = alarm.data.get("blame") or []
        named = f" Most of it: {', '.join(str(one) for one in blame)}." if blame else ""
        says = (
            f"{monitor} alarms at look {alarm.data.get('look')}: {alarm.why} Evidence {_short(statistic)}; at "
            f"{_short(promise)} it alarms, which without a change happens once in {_short(promise)} looks.{named}"
        )
        yield _link(alarm, "alarm", says, {"monitor": monitor, "statistic": statistic, "promise": promise})

    def _looks(self, alarm: Event, monitor: str) -> list[Event]:
        """The looks of the same champion up to an alarm, oldest first."""
        query = {"before": alarm.seq, "kinds": ["watched"], "version": alarm.version}
        found = self._timeline.read(self._model.name, **query, newest_first=True, limit=LOOKS)  # type: ignore[arg-type]
        looks = [one for one in found if monitor in (one.data.get("monitors") or {})]
        return [one for one in looks if one.environment == alarm.environment][::-1]

    def _commit(self, commit: Commit) -> Iterator[Link]:
        """What was pushed, built and tested."""
        kinds = ("pushed", "built", "tested", "failed")
        for event in self._timeline.read(self._model.name, kinds=kinds, until=self._version.at):
            if event.data.get("commit") != commit.sha:
                continue
            where = f" in {event.environment}" if event.environment else ""
            says = f"{commit.sha[:7]} arrives: {event.why}" if event.kind == "pushed" else f"{event.why}"
            yield _link(event, "commit", f"{says.rstrip('.')}{where}.")

    def _data(self) -> Iterator[Link]:
        """The versions of the datasets that came between what its parent learned from and what it learned from."""
        version = self._version
        parent = self._model.versions.get(version.parent or 0)
        for name, newest in version.data.items():
            last = parent.data.get(name, 0) if parent else 0
            came: list[Event] = []
            for event in self._timeline.read("", kinds=["data_added"], until=version.at, newest_first=True):
                number = int(event.data.get("version", 0)) if event.data.get("dataset") == name else newest + 1
                if number <= last:
                    break
                if number <= newest:
                    came.insert(0, event)
            if not came:
                continue
            rows = sum(int(event.data.get("rows", 0)) for event in came)
            aside = sum(int(event.data.get("quarantined", 0)) for event in came)
            than = f" since version {parent.number} learned" if parent else ""
            away = f"; {aside:,} rows were set aside" if aside else ""
            count = f"{len(came)} new version{'s' if len(came) > 1 else ''}"
            says = f"{name}@v{newest}: {count} with {rows:,} rows{than}{away}."
            numbers = {"dataset": name, "version": newest, "versions": len(came), "rows": rows, "quarantined": aside}
            yield _link(came[-1], "data", says, numbers, events=[event.seq for event in came])

    def _training(self) -> Iterator[Link]:
        event = self._mine("trained")
        if event is None:
            return
        facts = event.data
        if facts.get("change") == "repair":
            numbers = facts.get("repair") or []
            how = f" (slope and intercept {' and '.join(_short(one) for one in numbers)})" if numbers else ""
            says = f"No training: the probabilities of version {facts.get('parent')} are corrected{how}."
            yield _link(event, "training", says, {"repair": numbers})
            return
        steps = facts.get("steps") or []
        cached = sum(bool(step.get("cached")) for step in steps)
        seconds, rows = float(facts.get("cpu_seconds") or 0.0), int(facts.get("rows") or 0)
        until = f" until {str(facts['trained_until'])[:10]}" if facts.get("trained_until") else ""
        chosen = facts.get("windows") or {}
        window = str(facts.get("window") or "")
        of = f" of the window {window}" if chosen or window not in ("", "0s", "all") else ""
        says = f"Trained on {rows:,} rows{of}{until} in {seconds:.1f} s of processor time"
        says += f"; {cached} of {len(steps)} steps came from the cache." if steps else "."
        if served := str((facts.get("compiled") or {}).get("sentence", "")):
            says += f" {served}"
        says += f" {chosen['says']}" if chosen else ""
        numbers = {"rows": rows, "cpu_seconds": seconds} | ({"windows": chosen["tried"]} if chosen else {})
        yield _link(event, "training", says, numbers)

    def _judged(self) -> Iterator[Link]:
        """What each gate said."""
        event = self._mine("gated")
        if event is None:
            return
        for name, verdict in (event.data.get("gates") or {}).items():
            numbers = {key: one for key, one in (verdict.get("numbers") or {}).items() if not isinstance(one, list)}
            yield _link(event, "gate", f"{name}: {verdict.get('verdict')}. {verdict.get('why', '')}", numbers)
            self._estimates += _estimate(name, verdict.get("numbers") or {})
            segments = (verdict.get("numbers") or {}).get("segments") or []
            for one in sorted(segments, key=lambda each: -int(each.get("rows", 0)))[:12]:
                self._estimates += _estimate(str(one.get("segment")), one)

    def _released(self) -> Iterator[Link]:
        """What people and the policy decided, how it ran beside others, and how it ended."""
        for event in self._own:
            match event.kind:
                case "review_requested":
                    yield _link(event, "review", event.why)
                case "approved":
                    what = f"overrides the gate {event.data['gate']}" if event.data.get("gate") else "approves"
                    yield _link(event, "review", f"{event.actor} {what}: {event.why}")
                case "review_overridden":
                    yield _link(event, "review", f"EMERGENCY: {event.actor} lets it in without a review: {event.why}")
                case "changes_requested":
                    yield _link(event, "review", f"{event.actor} asks for changes: {event.why}")
                case "rejected":
                    yield _link(event, "review", f"{event.actor} rejects: {event.why}")
                case "challenged":
                    yield from self._beside(event)
                case "shifted":
                    yield _link(event, "beside", event.why, {"share": event.data.get("share")})
                case "promoted" | "rolled_back":
                    yield from self._promoted(event)
                case "retired" if event.data.get("role") == "champion" and event.environment == PRODUCTION:
                    yield _link(event, "end", f"It leaves {event.environment}: {event.why}")
                case "failed":
                    yield _link(event, "end", event.why)
                case "deleted":
                    yield _link(event, "end", f"{event.actor} deletes it: {event.why}")

    def _beside(self, event: Event) -> Iterator[Link]:
        """How it ran beside a champion: as a challenger, or on guard after it was replaced."""
        role = str(event.data.get("role"))
        yield _link(event, "beside", f"In {event.environment}, {role}: {event.why}")
        yield from self._compared(event, self._version.number, f"version {self._version.number} ({role})")

    def _promoted(self, event: Event) -> Iterator[Link]:
        kind = "comes back to" if event.kind == "rolled_back" else "answers in"
        previous = event.data.get("previous")
        instead = f", in place of version {previous}" if previous else ""
        yield _link(event, "promotion", f"It {kind} {event.environment}{instead}. {event.why}", {"previous": previous})
        if event.environment != PRODUCTION:
            return
        guard = next(
            (
                one
                for one in self._timeline.read(self._model.name, after=event.seq, kinds=["challenged"], limit=1)
                if one.version == previous and one.data.get("role") == "guard"
            ),
            None,
        )
        if guard is not None and guard.version is not None:
            yield from self._compared(guard, guard.version, f"version {guard.version}, which stays on guard,")
        yield from self._labels(event)

    def _compared(self, start: Event, number: int, who: str) -> Iterator[Link]:
        """The looks at a version beside a champion, from its start to its end."""
        ended = next(
            (
                one.seq
                for one in self._timeline.read(
                    self._model.name, after=start.seq, version=number, kinds=["retired", "promoted", "rolled_back"]
                )
                if one.environment == start.environment
            ),
            None,
        )
        looks = [
            one
            for one in self._timeline.read(
                self._model.name, after=start.seq, before=ended, version=number, kinds=["compared"]
            )
            if one.environment == start.environment
        ]
        if not looks:
            return
        primary = ((looks[0].data.get("state") or {}).get("tests") or {}).get("", {})
        needed = 1 / float(primary.get("alpha") or self._model.spec_of(self._version.commit).rollout.alpha)
        points = [(one.occurred_at, _number(one.data.get("evidence"))) for one in looks]
        self._courses.append(Course(name=f"evidence that {who.strip(',')} is better", limit=needed, points=points))
        last = looks[-1]
        interval = last.data.get("interval")
        low, high = interval if interval else (-math.inf, math.inf)
        told = f" [{low:.4f}, {high:.4f}]" if high - low < 1.0 else ""
        effect = last.data.get("effect")
        by = "no labels yet" if effect is None else f"its loss is lower by {effect:.4f}{told} on {last.data.get('n')}"
        count = f"{len(looks)} look{'s' if len(looks) > 1 else ''}"
        says = (
            f"{count} at {who} beside version {last.data.get('champion')}: {by}; evidence for it "
            f"{_short(last.data.get('evidence'))}, against it {_short(last.data.get('counter'))} (it counts from "
            f"{_short(needed)} on): {'; '.join([str(last.data.get('decision')), *(last.data.get('broken') or ())])}."
        )
        numbers = {key: last.data.get(key) for key in ("effect", "interval", "n", "evidence", "counter", "decision")}
        yield _link(last, "beside", says, numbers, events=[one.seq for one in looks])

    def _labels(self, promoted: Event) -> Iterator[Link]:
        """The matured loss of who answered before, and of this version after: another week, so no proof."""
        primary = self._model.spec_of(self._version.commit).rollout.primary
        at = promoted.occurred_at
        around = self._timeline.read(self._model.name, kinds=["watched"], until=at + NEAR)
        looks = [one for one in around if at - NEAR <= one.occurred_at and one.environment == PRODUCTION]
        before = _mean(primary, [one for one in looks if one.version == promoted.data.get("previous")])
        after = [one for one in looks if one.version == self._version.number and one.seq > promoted.seq]
        now = _mean(primary, after)
        if now is None or not after:
            return
        was = "" if before is None else f" It was {before[0]:.4f} on {before[1]:,} labels in the week before."
        says = (
            f"{primary} {now[0]:.4f} on {now[1]:,} labels in its first {NEAR.days} days.{was} Another week is another "
            "world: this is what followed, not the proof."
        )
        numbers = {"metric": primary, "after": now[0], "before": None if before is None else before[0]}
        yield _link(after[-1], "labels", says, numbers, events=[one.seq for one in after])

    def _mine(self, kind: str) -> Event | None:
        return next((event for event in self._own if event.kind == kind), None)

    def _last(self, kind: str, *, until: datetime, run: str) -> Event | None:
        found = self._timeline.read(self._model.name, kinds=[kind], until=until, newest_first=True)
        return next((event for event in found if event.data.get("run") == run), None)


def _link(
    event: Event, what: str, says: str, numbers: dict[str, Any] | None = None, events: Sequence[int] = ()
) -> Link:
    return Link(
        at=event.occurred_at,
        what=what,
        says=says,
        actor=event.actor,
        numbers=numbers or {},
        events=list(events) or [event.seq],
    )


def _statistic(look: Event, monitor: str) -> float:
    return _number(look.data["monitors"][monitor].get("statistic"))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _growth(values: Sequence[float]) -> str:
    """Write the last values of a course.

    Examples
    --------
    >>> _growth([1.5, 12.0, 353.57, 1026.25])
    '1.5, 12, 354, 1,030'
    """
    shown = values[-5:]
    return ("... " if len(values) > len(shown) else "") + ", ".join(_short(value) for value in shown)


def _short(value: Any) -> str:
    """Write a number with three digits.

    Examples
    --------
    >>> _short(1026.25), _short(0.98713), _short(None)
    ('1,030', '0.987', '-')
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "-"
    return f"{float(f'{value:.3g}'):,.10g}"


def _estimate(name: str, numbers: dict[str, Any]) -> list[Estimate]:
    gain, low, high = (numbers.get(key) for key in ("gain", "low", "high"))
    if any(not isinstance(one, int | float) for one in (gain, low, high)):
        return []
    return [Estimate(name=name, gain=gain, low=low, high=high, rows=int(numbers.get("rows", 0)))]  # type: ignore[arg-type]


def _mean(metric: str, looks: Sequence[Event]) -> tuple[float, int] | None:
    """Return a metric over several looks, weighted by labels, and how many labels these are."""
    told = [(_number(one.data.get("metrics", {}).get(metric)), int(one.data.get("labelled", 0))) for one in looks]
    told = [(value, count) for value, count in told if math.isfinite(value) and count]
    labels = sum(count for _, count in told)
    return (sum(value * count for value, count in told) / labels, labels) if labels else None
