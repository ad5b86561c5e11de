"""A worker: asks the loop what is due, takes one action under a lease, does it, writes down what came of it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from orrery.actions import build, courier, gate, probe, purge, train, watch
from orrery.actions.desk import Desk, failure, owner_of
from orrery.actions.expire import expire
from orrery.app import Orrery
from orrery.errors import NotFound, OrreryError, ProjectFailed
from orrery.loop import decide
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState
from orrery.timeline.store import connect
from orrery.types import digest
from orrery.workers.action import Action
from orrery.workers.leases import SECONDS, Leases

log = logging.getLogger("orrery.worker")

Doing = Callable[[Desk, ModelState, Action], list[Draft]]
DOINGS: dict[str, tuple[str, Doing]] = {
    "record": ("", lambda desk, model, action: list(action.drafts)),
    "build": ("build", build.build),
    "test": ("tests", build.test),
    "probe": ("triggers", probe.probe),
    "train": ("training", train.train),
    "gate": ("gates", gate.gate),
    "watch": ("monitors", watch.watch),
    "compare": ("rollout", watch.compare),
    "purge": ("registry", purge.purge),
}
"""Kind of action -> the stage that a failure is named after, and what does it."""
ATTEMPTS = 3  # times that an action may fail for a reason that is not the project's
LONG = ("build", "test", "probe", "train")
SWEEP = 5.0  # seconds between two decisions on a model that has no news
IDLE = 300.0  # seconds after which a version's process that nobody asks is ended
UPKEEP = 5.0  # seconds between two visits to the journal when there is nothing else to do
AGAIN = 600.0  # seconds until an anchor is put again to where it could not be put
BUSY_POLL, QUIET_POLL = 0.01, 0.25


class Worker:
    """Does the work of one orrery.

    Parameters
    ----------
    orrery : the opened orrery.
    name : a place, not a life: a worker that is started again under its name frees what its predecessor held.
    """

    def __init__(self, orrery: Orrery, name: str) -> None:
        self.orrery = orrery
        self.name = name
        self.desk = Desk(orrery)
        self.leases = Leases(connect(orrery.settings.database, durable=False))  # a dead machine holds no lease
        self._stopping = threading.Event()
        self._seen: object = None
        self._kept = 0.0
        self._read = 0
        self._swept: float | None = None
        self._instant: datetime | None = None
        self._pending: set[str] = set()
        self._anchoring: threading.Thread | None = None

    def stop(self) -> None:
        """Stop after the action at hand."""
        self._stopping.set()

    def run(self) -> None:
        """Work until told to stop."""
        self.leases.release_all(self.name)
        self.catch_up()
        sending = None
        if self.orrery.settings.sends:
            sending = courier.beside(self.orrery, self.leases, self.name, self._stopping)
        pause = BUSY_POLL
        while not self._stopping.is_set():
            mark = self._mark()
            if mark != self._seen and self.step():
                pause = BUSY_POLL
                continue
            self._seen = mark
            self._upkeep()
            pause = min(pause * 1.5, BUSY_POLL if self.orrery.settings.replay else QUIET_POLL)
            self._stopping.wait(pause)
        if sending is not None:
            sending.join(5.0)  # what takes longer is sent again

    def _upkeep(self) -> None:
        """Between actions, and one worker at a time: bring predictions to the log, and keep the lake in few files."""
        now = time.monotonic()
        self.desk.let_go(unused=IDLE)
        if self.orrery.settings.replay or now < self._kept:
            return
        self._kept = now + UPKEEP
        # Leases that run out by themselves: whoever gets one has done the job for all until then.
        if self.leases.take(["upkeep:ship"], self.name, UPKEEP):
            self.orrery.ship_journal()
        if self.leases.take(["upkeep:announce"], self.name, 60.0):
            self.catch_up()
        if self.leases.take(["upkeep:compact"], self.name, 3600.0):
            self.orrery.lake.compact()
        if self.leases.take(["upkeep:expire"], self.name, 3600.0):
            expire(self.desk)
        self._anchor()

    def _anchor(self) -> None:
        """Note the head of the chain outside, beside the work: what does not answer holds nothing up."""
        settings = self.orrery.settings
        if not settings.anchors or (self._anchoring is not None and self._anchoring.is_alive()):
            return
        if not self.leases.take(["upkeep:anchors"], self.name, min(60.0, settings.anchor_every)):
            return
        anchoring = self.orrery.anchoring
        due = [
            one
            for one in anchoring.due(settings.anchors.split(), self.orrery.clock.now(), settings.anchor_every)
            if not anchoring.failing(one) or self.leases.take([f"upkeep:{digest(one)}"], self.name, AGAIN)
        ]
        if due:
            self._anchoring = threading.Thread(target=anchoring.anchor, args=[due], name="anchors", daemon=True)
            self._anchoring.start()

    def catch_up(self) -> None:
        """Write down what happened while nobody was there to: commits and data that have no event yet."""
        from orrery.data.ingest import announce
        from orrery.source.git import announce as announce_commits

        announce_commits(self.desk.source, self.orrery.timeline)
        for name in self.orrery.lake.names():
            announce(self.orrery.lake, self.orrery.timeline, name)
        self.orrery.ship_journal()

    def step(self) -> bool:
        """Do one action that is due; say whether there was one.

        What changes a model is done one at a time for each model, so that its decisions follow each other as if there
        were one worker; only the project's own long work may go on beside (not in a replay, where two runs must agree).
        """
        for name in self._candidates():
            due = self.orrery.due(name)
            turn = f"model:{name}"
            beside = [] if self.orrery.settings.replay else [one.key for one in due if one.kind in LONG]
            short = [one.key for one in due if one.key not in beside]
            if short and self.leases.take([turn], self.name):
                with self._held(turn):
                    self._turn(name)
                return True
            if beside and self._take(name, beside):
                return True
        return False

    def _candidates(self) -> Iterator[str]:
        """Yield the models for which something is due.

        A model without news is only decided on anew as time passes, from the state that is in memory: a thousand quiet
        models cost a thousand decisions now and then, and no query.
        """
        orrery, now = self.orrery, time.monotonic()
        seq = orrery.timeline.head()[0]
        news = orrery.timeline.changed(self._read) if self._swept is not None else set()
        data, instant = orrery.states.data(), orrery.clock.now()
        moved = orrery.settings.replay and instant != self._instant
        everyone = self._swept is None or "" in news or moved or now - self._swept >= SWEEP
        names = orrery.models() if everyone else [name for name in self._pending | news if name]
        pending = set()
        for name in names:
            state = orrery.states.model(name) if name in news else orrery.states.held(name)
            if decide(state, data, instant):
                pending.add(name)
        self._pending, self._read, self._instant = pending, seq, instant
        if everyone:
            self._swept = now
        yield from sorted(pending)

    def _turn(self, name: str) -> None:
        """Do what is due for a model, one after the other, until nothing is but what may go on beside."""
        while not self._stopping.is_set():
            due = [one for one in self.orrery.due(name) if self.orrery.settings.replay or one.kind not in LONG]
            if not due:
                return
            if due[0].kind == "record":
                self.do(due[0])  # writes events that are there once, however often they are written: no lease needed
            elif not self._take(name, [due[0].key]):
                return

    def _take(self, name: str, keys: list[str]) -> bool:
        """Take the first of these actions that nobody holds and do it if it is still due; say if there was one."""
        key = self.leases.take(keys, self.name)
        if key is None:
            return False
        with self._held(key):
            # Another worker may have done it between the look and the lease.
            again = {action.key: action for action in self.orrery.due(name)}
            if key in again:
                self.do(again[key])
        return True

    def do(self, action: Action) -> None:
        """Do an action and write down what came of it; whatever goes wrong ends as an event, never as a dead worker."""
        stage, doing = DOINGS[action.kind]
        model = self.orrery.model(action.model)
        try:
            self.orrery.append(self._clear(model, doing(self.desk, model, action)))
        except ProjectFailed as error:
            self._fail(action, model, stage, str(error), error.output)
        except NotFound as error:
            self._fail(action, model, stage, str(error), "")
        except Exception as error:  # the loop must outlive anything that one action meets
            log.exception("%s failed", action.key)
            attempts = self.leases.attempts(action.key)
            if attempts >= ATTEMPTS and action.kind != "record":
                self._fail(action, model, stage, f"{attempts} times: {type(error).__name__}: {error}", "")
            else:
                time.sleep(min(0.2 * 2**attempts, 5.0))

    def _fail(self, action: Action, model: ModelState, stage: str, error: str, output: str) -> None:
        commit = action.args.get("commit", "")
        if action.kind == "train":
            commit = model.runs[action.args["run"]].commit
        owner, said = owner_of(model, commit), self.desk.redaction(model.name)
        with contextlib.suppress(OrreryError):
            self.orrery.append(failure(model, action, stage, said.of(error), owner=owner, output=said.of(output)))

    def _clear(self, model: ModelState, drafts: list[Draft]) -> list[Draft]:
        """Return events without a secret of the project, whatever its code said to whom."""
        said = self.desk.redaction(model.name)
        return [msgspec.structs.replace(one, why=said.of(one.why), data=said.of(one.data)) for one in drafts]

    def _mark(self) -> object:
        replayed = self.orrery.clock.now() if self.orrery.settings.replay else None
        return self.orrery.timeline.head(), replayed, int(time.time())

    @contextlib.contextmanager
    def _held(self, key: str) -> Iterator[None]:
        done = threading.Event()

        def renew() -> None:
            while not done.wait(SECONDS / 3):
                self.leases.renew(key, self.name)

        keeper = threading.Thread(target=renew, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()
            self.leases.release(key, self.name)
