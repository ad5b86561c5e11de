"""Find what is kept of a subject, and erase it: from the wish to the proof that nothing of it is in any file.

The order makes a kill harmless. First the timeline says that the subject is to be erased, so that no row of it is taken
any more; then goes what was derived, then what it was derived from; then every file is searched. What is not done yet
is found again by the same order, given again, and what is done is not there any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from orrery.actions.desk import Desk
from orrery.actions.forget import Forgetting
from orrery.data.journal import FOLDER, segments
from orrery.data.subject import DATASETS, WHOSE, Held, Searched, Subject
from orrery.data.traces import Search, Trace
from orrery.errors import Conflict, NotAllowed, NotFound, NotUnderstood
from orrery.registry.versions import delete_artifact
from orrery.rollout.moves import order_deletion
from orrery.timeline.event import Draft
from orrery.timeline.state import Erasure, ModelState
from orrery.types import digest
from orrery.workers.leases import Leases

ACTOR = "orrery/privacy"
AT_WORK = ("train", "probe", "gate", "watch", "compare", "model")
"""Leases of what has rows in its memory, and writes files from it."""
HOLDS = "Its files hold a subject that was erased."
PATIENCE = 900.0
"""Seconds that an erasure waits for trainings, and for a server that writes to its journal."""


@dataclass(frozen=True)
class Found:
    """What is kept of a subject.

    Parameters
    ----------
    subject : whom.
    tables : that hold rows of it.
    versions : model -> versions that learned from it.
    blind : datasets that say of no row whose it is.
    files : where it stands, by folder of the home: how many files.
    traces : those files, and what could not be read.
    searched, size : files that were looked at, and their bytes.
    """

    subject: Subject
    tables: list[Held]
    versions: dict[str, list[int]]
    blind: list[str]
    files: dict[str, int] = field(default_factory=dict)
    traces: list[Trace] = field(default_factory=list)
    searched: int = 0
    size: int = 0

    @property
    def rows(self) -> int:
        """Rows of it, in all tables."""
        return sum(one.rows for one in self.tables)

    @property
    def proof(self) -> dict[str, Any]:
        """What the search of the files says, as the timeline keeps it."""
        return {"files": self.searched, "bytes": self.size, "clean": not self.traces, "left": self.files}


def find(desk: Desk, value: str, *, actor: str, why: str) -> Found:
    """Find what is kept of a subject; that somebody looked is written down, but not for whom."""
    return _told(desk, value, actor, why, files=True)


def preview(desk: Desk, value: str, *, actor: str, why: str) -> Found:
    """Say what an erasure would erase, from the tables alone; that somebody looked is written down, too."""
    return _told(desk, value, actor, why, files=False)


def erase(
    desk: Desk,
    value: str,
    *,
    actor: str,
    why: str,
    patience: float = PATIENCE,
    went: Callable[[str], None] = lambda step: None,
) -> Found:
    """Erase a subject, and search every file for it. The same order again finishes what was not finished.

    Parameters
    ----------
    value : name, number or pseudonym of the subject.
    patience : seconds to wait for what is under way.
    went : called with each step, in words.

    Returns
    -------
    What was erased (``tables``), and what is left (``traces``): nothing, or the reason is in ``todo`` of the command.

    Raises
    ------
    NotFound
        If nothing is kept of it.
    NotAllowed
        If the lake is in an object store.
    NotUnderstood
        If the reason names the subject.
    Conflict
        If a training, a scoring or a server is at work for longer than that.
    """
    orrery = desk.orrery
    orrery.allow("privacy", "")
    if "://" in orrery.lake.root:
        raise NotAllowed(
            "The lake is in an object store, where old files cannot be purged from here.",
            safe="Nothing was erased.",
        )
    searched = Searched.of(orrery.lake, orrery.timeline, orrery.states)
    subject = orrery.privacy.subject(value, _columns(searched))
    asked = _ask(desk, searched, subject, actor, _speechless(subject, why))
    went("journal")
    _drain(desk, subject, patience)
    models = _models(desk, searched, subject, asked)
    files = Forgetting(desk, searched, subject, models)
    files.scorings()
    went("files of trainings and versions")
    files.rewrite()
    went("tables")
    tables = searched.erase(subject)
    gone = time.time()
    went("work under way")
    _wait(desk, patience)
    files.rewrite()  # and what was being made of the rows until now
    files.clear(gone)
    orrery.privacy.sealed.forget(subject.pseudonym)
    went("search")
    versions = _learned(desk, asked)
    left = _searched(desk, subject)
    if _delete_unused(desk, left.traces):
        left = _searched(desk, subject)
    found = Found(subject, tables, versions, searched.blind(), left.files, left.traces, left.searched, left.size)
    _conclude(desk, found, asked, actor, why)
    return found


def _told(desk: Desk, value: str, actor: str, why: str, *, files: bool) -> Found:
    desk.orrery.allow("privacy", "")
    _speechless(desk.orrery.privacy.subject(value), why)
    found = _look(desk, value, files=files)
    data = {"grave": found.subject.grave, "rows": found.rows, "files": sum(found.files.values())}
    desk.orrery.append([Draft(kind="subject_searched", actor=actor, why=why, data=data)])
    return found


def _look(desk: Desk, value: str, *, files: bool) -> Found:
    orrery = desk.orrery
    searched = Searched.of(orrery.lake, orrery.timeline, orrery.states)
    subject = orrery.privacy.subject(value, _columns(searched))
    held = searched.held(subject)
    known = orrery.states.data().asked.get(subject.grave)
    first = {one.name: one.first for one in held if one.folder == DATASETS}
    versions = {name: _since(orrery.states.model(name), first) for name in orrery.timeline.models()}
    versions = {name: numbers for name, numbers in versions.items() if numbers} or (known.versions if known else {})
    found = Found(subject, held, versions, searched.blind())
    if not files:
        return found
    left = _searched(desk, subject)
    return Found(subject, held, versions, found.blind, left.files, left.traces, left.searched, left.size)


def _searched(desk: Desk, subject: Subject) -> Found:
    """Search all files of the home, and of the lake where that is another folder."""
    home = desk.settings.home
    lake = Path(desk.orrery.lake.root)
    roots = [home] if "://" in desk.orrery.lake.root or lake.is_relative_to(home) else [home, lake]
    traces: list[Trace] = []
    files: dict[str, int] = {}
    count = size = 0
    for root in roots:
        search = Search(root, subject.needles)
        for trace in search:
            traces.append(trace)
            top = trace.path.partition("/")[0] if root == home else "lake"
            files[top] = files.get(top, 0) + 1
        count, size = count + search.files, size + search.size
    return Found(subject, [], {}, [], files, traces, count, size)


def _speechless(subject: Subject, why: str) -> str:
    """Return a reason that does not name the subject: the timeline keeps it for ever."""
    if any(name.casefold() in why.casefold() for name in subject.names if len(name) > 2):
        raise NotUnderstood(
            "The reason names the subject, and the timeline would keep it for ever.",
            safe="Nothing was done.",
            todo="Say it without: the number of the request will do.",
        )
    return why


def _columns(searched: Searched) -> set[str]:
    """Return the columns that may hold a subject in the clear."""
    return {*searched.clear, *WHOSE.values()} if searched.clear else set()


def _ask(desk: Desk, searched: Searched, subject: Subject, actor: str, why: str) -> Erasure:
    """Write down that the subject is to be erased, and of which versions its rows are, before any of them is gone."""
    orrery = desk.orrery
    known = orrery.states.data().asked.get(subject.grave)
    orrery.ship_journal()
    held = searched.held(subject)
    new = {one.name: [one.first, one.last] for one in held if one.folder == DATASETS}
    journalled = any(subject.needles.within(_bytes(path)) for path in segments(desk.settings.home / FOLDER))
    if known is not None and not held and not journalled:
        return known
    if known is None and not held and not _searched(desk, subject).traces:
        raise NotFound(
            "Nothing is kept of this subject.",
            safe="Nothing was changed.",
            todo=f"Not searchable, for want of a subject: {', '.join(searched.blind()) or 'none'}.",
        )
    resumed = known is not None and not known.clean
    before = known.held if known is not None and resumed else {}
    keys = [orrery.privacy.grave(key, model) for model, found in searched.keys(subject).items() for key in found]
    data = {"grave": subject.grave, "held": {**new, **before}, "keys": sorted(keys)}
    orrery.append([Draft(kind="erasure_asked", actor=actor, why=why, data=data)])
    return orrery.states.data().asked[subject.grave]


def _drain(desk: Desk, subject: Subject, patience: float) -> None:
    """Bring the journal to the log, which takes no row of the subject any more, until no file of it has one."""
    folder, until = desk.settings.home / FOLDER, time.monotonic() + patience
    for path in (folder / "damaged").glob("*"):
        if subject.needles.within(path.read_bytes()):
            path.unlink()
    while True:
        desk.orrery.ship_journal()
        if not any(subject.needles.within(_bytes(path)) for path in segments(folder)):
            return
        if time.monotonic() > until:
            raise Conflict(
                "The inference server still writes a file that has rows of the subject.",
                safe="No row of it is taken any more.",
                todo="See that the control plane runs, so that the server begins another file; then give the order "
                "again.",
            )
        time.sleep(0.2)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _models(desk: Desk, searched: Searched, subject: Subject, asked: Erasure) -> list[str]:
    """Return the models that learn from a dataset with the subject, or whose log or labels have it."""
    tables = {one.name for one in searched.held(subject) if one.folder not in (DATASETS, "quarantine")}
    learned = _learned(desk, asked)
    near = [name for name, keyed in searched.models.items() if set(keyed.datasets) & set(asked.held)]
    return sorted({*near, *learned, *(name for name in tables if name in searched.models)})


def _learned(desk: Desk, asked: Erasure) -> dict[str, list[int]]:
    """Return, by model, the versions that learned from rows of the subject."""
    first = {name: versions[0] for name, versions in asked.held.items()}
    found = dict(asked.versions)
    for name in desk.orrery.timeline.models():
        model = desk.orrery.states.model(name)
        # Trained on the same version of a dataset after it was erased is not learned from the subject.
        over = asked.done if asked.done is not None and asked.done > asked.at else None
        numbers = _since(model, first)
        numbers = [one for one in numbers if over is None or model.versions[one].at < over]
        if joined := sorted({*numbers, *found.get(name, ())}):
            found[name] = joined
    return found


def _since(model: ModelState, first: dict[str, int]) -> list[int]:
    """Return the versions that learned from one of these versions of datasets, or from a later one."""
    return [
        number
        for number, version in model.versions.items()
        if any(first[name] and pin >= first[name] for name, pin in version.data.items() if name in first)
    ]


def _wait(desk: Desk, patience: float) -> None:
    """Wait until what was at work when the rows went has ended."""
    leases, until = Leases(desk.orrery.timeline.engine), time.monotonic() + patience
    held = {(one.action, one.attempts) for one in leases.held() if one.action.partition(":")[0] in AT_WORK}
    while held:
        held &= {(one.action, one.attempts) for one in leases.held()}
        if time.monotonic() > until:
            raise Conflict(
                f"{len(held)} actions are under way that may have read the rows.",
                safe="The rows are erased.",
                todo="Give the same order again when they have ended.",
            )
        time.sleep(0.2)


def _delete_unused(desk: Desk, traces: list[Trace]) -> int:
    """Delete the versions whose model itself holds the subject, as far as they answer nowhere; return how many."""
    count = 0
    for name in desk.orrery.timeline.models():
        for number, version in desk.orrery.states.model(name).versions.items():
            where = str(version.facts.get("artifact") or "-") + "/"
            if version.deleted or not any(one.path.startswith(where) for one in traces):
                continue
            try:
                desk.orrery.order(name, partial(order_deletion, number=number, why=HOLDS, actor=ACTOR))
            except NotAllowed:
                continue  # it answers: the training that is asked for will replace it
            delete_artifact(desk.settings, desk.orrery.timeline, name, number)
            count += 1
    return count


def _conclude(desk: Desk, found: Found, asked: Erasure, actor: str, why: str) -> None:
    """Write down what was erased and what a search says, and for each model what is to be trained again."""
    orrery, lake = desk.orrery, desk.orrery.lake
    names = {*asked.held, *(one.name for one in found.tables if one.folder == DATASETS)} & set(lake.names())
    tables = [{key: value for key, value in asdict(one).items() if value} | {"rows": one.rows} for one in found.tables]
    facts = {
        "grave": asked.grave,
        "tables": tables,
        "datasets": {name: lake.version(name).rows for name in sorted(names)},
        "proof": found.proof,
        "versions": found.versions,
    }
    proof = "Nothing of it is in any file" if not found.traces else f"{len(found.traces)} files still hold it"
    words = f"{found.rows} rows of a subject erased. {proof}, of {found.searched} that were searched. {why}"
    done = Draft(kind="erased", actor=actor, why=words, data=facts)
    drafts = [done]
    for name, versions in found.versions.items():
        fresh = [one for one in versions if one not in orrery.states.model(name).unlearn]
        if fresh:
            which = f"Version{'s' if len(fresh) > 1 else ''} {', '.join(map(str, fresh))}"
            drafts.append(
                Draft(
                    id=digest(f"erased/{name}/{asked.grave}/{fresh}"),
                    kind="erased",
                    actor=ACTOR,
                    why=f"{which} learned from rows of a subject that is erased now.",
                    model=name,
                    data={"versions": fresh, "grave": asked.grave},
                )
            )
    orrery.append(drafts)


def facts(found: Found) -> dict[str, Any]:
    """Return what was found, for programs; the subject is in it as its pseudonym."""
    return {
        "subject": found.subject.pseudonym,
        "rows": found.rows,
        "tables": [asdict(one) for one in found.tables],
        "versions": found.versions,
        "not_searchable": found.blind,
        "files": [asdict(one) for one in found.traces],
        "searched": {"files": found.searched, "bytes": found.size},
    }
