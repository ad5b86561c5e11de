"""What a worker has at hand: the opened orrery, the registry, the repositories, and folders by purpose."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from subprocess import PIPE
from typing import IO, TYPE_CHECKING, Any

import msgspec

from orrery.app import Orrery
from orrery.build.environment import Environment, lock, moved
from orrery.build.suite import PROGRAM as TESTS
from orrery.errors import NotFound, ProjectFailed
from orrery.pipeline.client import LossesProcess, ModelProcess
from orrery.pipeline.redaction import PREFIX, SALT, Redaction
from orrery.spec import Spec
from orrery.timeline.event import Draft
from orrery.timeline.state import Commit, ModelState, Version
from orrery.types import digest, parse_duration
from orrery.workers.action import Action
from orrery.workers.contained import Contained, Limits, spawn
from orrery.workers.walls import Walling, environment_of
from orrery.workers.warm import WarmStarts

if TYPE_CHECKING:
    from orrery.registry.versions import Registry
    from orrery.source.git import Source


TRAINING, HOST, LOSSES, _ = PROGRAMS = (
    "orrery.training.runner",
    "orrery.pipeline.host",
    "orrery.pipeline.losses_host",
    TESTS,
)
"""Modules that run a project's code in its environment."""


@dataclass(frozen=True)
class Command:
    """What starts a project's code in a process of its own, here or on another machine.

    Parameters
    ----------
    words, folder, limits : the program, where it runs, and what it may use.
    needs : what must be there.
    reads : what else it may read.
    walling : puts walls around it, where it runs.
    """

    words: tuple[str, ...]
    folder: str
    limits: Limits
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    walling: Walling

    def process(self, timeout: float, warm: WarmStarts | None = None) -> ModelProcess:
        """Return the process of a version, not started yet; an answer that takes longer than ``timeout`` s fails."""
        return ModelProcess(partial(self.launch, warm=warm), timeout=timeout)

    def launch(self, printed: IO[bytes], warm: WarmStarts | None = None) -> Contained:
        """Start it; what it prints goes to a file."""
        walls = self.walling.around([environment_of(self.words[0]), *self.needs[1:], *self.reads])
        return spawn(
            self.words,
            cwd=Path("/" if walls else self.folder),
            env={"PYTHONHASHSEED": "0", **threads(1)},
            limits=self.limits,
            stdin=PIPE,
            stdout=PIPE,
            stderr=printed,
            warm=warm,
            walls=walls,
        )


class Desk:
    """The means of a worker.

    Parameters
    ----------
    orrery : the opened orrery.
    again : whether programs will be started again and again, so that it pays to keep what they import.
    """

    def __init__(self, orrery: Orrery, *, again: bool = True) -> None:
        self.orrery = orrery
        self.settings = orrery.settings
        self.walling = Walling(self.settings.walls, self.settings.home)
        self.warm = WarmStarts(self.settings.folder("cache") / "imported", PROGRAMS) if again else None
        self._standing: list[_Standing] = []
        weakref.finalize(self, _end, self._standing)

    @cached_property
    def registry(self) -> Registry:
        """The model registry; importing it takes seconds, so only those who register do."""
        from orrery.registry.versions import Registry

        return Registry(self.settings, self.orrery.timeline)

    @cached_property
    def source(self) -> Source:
        """The git repositories."""
        from orrery.source.git import Source

        return Source(self.settings)

    def checkout(self, model: str, commit: str) -> Path:
        """Return the folder with a commit's files."""
        path: Path = self.source.checkout(model, commit)
        return path

    def environment(self, model: str, spec: Spec, commit: str) -> Environment:
        """Return the locked environment of a commit, made if it is not there.

        Raises
        ------
        ProjectFailed
            If it cannot be made, or a secret that it needs was not set.
        """
        checkout, secrets = self.checkout(model, commit), self.secrets(model, spec, "build")
        folder, redaction = self.settings.folder("environments"), self.redaction(model)
        built, more = self.settings.folder("cache") / "built" / model, self.settings.packages.split()
        return lock(checkout, folder, secrets, model, redaction, self.walling, built, more)

    def contained(self, network: bool = False) -> str:
        """Return how programs of a project are contained, as versions say it."""
        return self.walling.standing + (", with other machines by a proxy" if network else "")

    def secrets(self, model: str, spec: Spec, action: str) -> dict[str, str]:
        """Return the variables with the secrets that an action of a project gets.

        Raises
        ------
        ProjectFailed
            If one was not set.
        """
        wanted = [name for name, actions in spec.secrets.items() if action in actions]
        known = self.orrery.secrets.values(model) if wanted else {}
        for name in wanted:
            if name not in known:
                raise ProjectFailed(
                    f"The secret {name}, which orrery.toml gives to {action}, is not set.",
                    safe="None of the project's code ran.",
                    todo=f"orrery secret set {model} {name}",
                )
        found = {PREFIX + name.upper().replace("-", "_"): known[name] for name in wanted}
        return found | {SALT: self.orrery.secrets.salt(model)} if found else {}

    def redaction(self, model: str) -> Redaction:
        """Return what takes the secrets of a project out of what is captured of it."""
        return Redaction(self.orrery.secrets.values(model).values())

    def python_of(self, commit: Commit) -> str:
        """Return the interpreter that a commit was built with."""
        assert commit.built is not None
        return moved(str(commit.built["python"]), self.settings.folder("environments"))

    def artifact(self, version: Version) -> Path:
        """Return the folder of a version's artifact.

        Raises
        ------
        NotFound
            If the version was deleted.
        """
        folder = self.settings.home / str(version.facts["artifact"])
        if version.deleted or not folder.is_dir():
            raise NotFound(f"The artifact of version {version.number} is gone.")
        return folder

    def steps(self, model: str) -> Path:
        """Return the folder with results of a project's steps: its own, for who writes there runs code as who reads."""
        return self.settings.folder("cache") / "steps" / model

    def results(self, *kinds: str) -> Iterator[Path]:
        """Yield what is kept of results of steps, of all projects; those of local runs are together."""
        cache = self.settings.folder("cache")
        for folder in (cache, *(cache / "steps").glob("*")):
            for kind in kinds or ("records", "values"):
                yield from (folder / kind).rglob("*")

    def evidence(self, model: str, run: str) -> Path:
        """Return the folder of what a training left for the gates."""
        return self.settings.folder("evidence") / model / run

    def model_process(
        self, model: ModelState, version: Version, which: str = "model", timeout: float = 60.0
    ) -> ModelProcess:
        """Start a version in a process of its own, which may use as much memory as its training.

        An answer that takes longer than ``timeout`` seconds fails.
        """
        return self.command(model, version, which).process(timeout, self.warm)

    def command(self, model: ModelState, version: Version, which: str = "model") -> Command:
        """Return what starts a version in a process of its own."""
        python, spec = self.python_of(model.commits[version.commit]), model.spec_of(version.commit)
        beside = [model.champion()]  # one process answers for both where they are compared
        others = [str(self.settings.home / one.facts["artifact"]) for one in beside if one is not None]
        return self.command_of(python, self.artifact(version), spec, which, others)

    def command_of(
        self, python: str, artifact: Path, spec: Spec, which: str = "model", others: Sequence[str] = ()
    ) -> Command:
        """Return the same for what was trained and is no version yet."""
        words = (python, "-m", HOST, str(artifact), "--which", which)
        folder, needs = str(self.settings.folder("artifacts")), (python, str(artifact))
        return Command(words, folder, limits_of(spec), needs, tuple(others), self.walling)

    def losses(self, model: ModelState, commit: str) -> LossesProcess:
        """Return the process that computes the losses of a commit; the last one that was asked stays between actions.

        Raises
        ------
        ProjectFailed
            If it cannot be started.
        """
        python, checkout = self.python_of(model.commits[commit]), str(self.checkout(model.name, commit))
        words = (python, "-m", LOSSES, checkout)
        folder = str(self.settings.folder("checkouts"))
        command = Command(words, folder, limits_of(model.spec_of(commit)), (python, checkout), (), self.walling)
        if not self._standing or self._standing[0].command != command or not self._standing[0].process.alive:
            self.let_go()
            process = LossesProcess(partial(command.launch, warm=self.warm))
            process.start()
            self._standing.append(_Standing(command, process))
        self._standing[0].asked = time.monotonic()
        return self._standing[0].process

    def let_go(self, unused: float = 0.0) -> None:
        """End the process that stays, if nobody has asked it for so many seconds."""
        if self._standing and time.monotonic() - self._standing[0].asked >= unused:
            _end(self._standing)

    def keep(self, value: Any) -> str:
        """Store a value by its content and return its digest."""
        body = msgspec.msgpack.encode(value)
        name = digest(body)
        path = self.settings.folder("kept") / name
        if not path.exists():
            fresh = path.with_suffix(".new")
            fresh.write_bytes(body)
            fresh.replace(path)
        return name

    def kept(self, name: str) -> Any:
        """Return a value that was stored by :meth:`keep`; nothing where it was removed since."""
        if not name or not (self.settings.folder("kept") / name).exists():
            return {}
        return msgspec.msgpack.decode((self.settings.folder("kept") / name).read_bytes())


@dataclass
class _Standing:
    """A process that stays between actions, and when it was asked last."""

    command: Command
    process: LossesProcess
    asked: float = 0.0


def _end(standing: list[_Standing]) -> None:
    while standing:
        standing.pop().process.close()


def limits_of(spec: Spec, wall: str | None = None) -> Limits:
    """Return what the project's own code may use; without ``wall`` it may live as long as it is needed."""
    seconds = None if wall is None else parse_duration(wall).total_seconds()
    return Limits(memory_bytes=int(spec.resources.memory_gb * 2**30), wall_seconds=seconds)


def threads(share: int) -> dict[str, str]:
    """Return the variables that let a program's libraries use so many threads."""
    return {name: str(share) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def failure(
    model: ModelState,
    action: Action,
    stage: str,
    error: str,
    *,
    owner: str,
    output: str = "",
    final: bool = True,
) -> list[Draft]:
    """Return the events of a step that failed for good: the failure, and an issue of it if none is open."""
    about = action.args.get("commit") or action.args.get("run") or action.version or ""
    cause = f"failed:{stage}:{action.environment}:{about}"
    facts = {"stage": stage, "error": error, "output": output[-4000:], "final": final, **action.args}
    failed = Draft(
        id=action.event_id("failed"),
        kind="failed",
        actor=f"orrery/{stage}",
        why=f"{stage.capitalize()} failed: {error}",
        model=action.model,
        version=action.version,
        environment=action.environment,
        data=facts,
    )
    issue = Draft(
        id=action.event_id("issue"),
        kind="issue_opened",
        actor=f"orrery/{stage}",
        why=failed.why,
        model=action.model,
        version=action.version,
        environment=action.environment,
        data={
            "issue": digest(action.key)[:12],
            "title": failed.why,
            "owner": owner,
            "cause": cause,
            "events": [failed.id],
        },
    )
    return [failed] if model.open_issue(cause) else [failed, issue]


def owner_of(model: ModelState, commit: str = "") -> str:
    """Return who gets the issues of a model: its owner, else the author of the commit."""
    found = model.commits.get(commit) or next(reversed(model.commits.values()), None)
    return str(found.spec["model"].get("owner") or found.author) if found else ""
